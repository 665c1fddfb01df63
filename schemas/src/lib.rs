//! The contract between Trade-Net's programs.
//!
//! Problem: six processes of different ages talk over a broker and must mean the same by every byte.
//! Idea: everything that crosses a process is a type of this crate, and bytes become such a type once, at the edge.
//! Rule kept: a value that exists is valid. Nothing behind the edge checks it again, and nothing here does IO.
//!
//! - [`ids`]: who and when: replicas, boots, stores, epochs, sequence numbers.
//! - [`trade`]: what is traded: symbols, sides, quantities, prices, keys.
//! - [`account`]: who trades with each other, and what they see.
//! - [`feed`]: what everybody may know of them.
//! - [`journal`]: the facts in the order log.
//! - [`message`]: what travels between services, and [`subjects`] where.
//! - [`rest`]: what clients of the REST edge see.
//! - [`trace`]: one request under one id, beside the messages.
//! - [`directory`]: who may say and hear what at the broker.
//! - [`limits`]: the bounds that all of these share.
//! - `documents`, with the feature `json-schema`: JSON Schemas and the AsyncAPI document, made from all of these.

pub mod account;
#[cfg(feature = "json-schema")]
mod asyncapi;
pub mod directory;
#[cfg(feature = "json-schema")]
pub mod documents;
pub mod feed;
pub mod ids;
pub mod journal;
#[cfg(feature = "json-schema")]
mod json_schema;
pub mod limits;
pub mod message;
pub mod rest;
#[cfg(feature = "json-schema")]
pub mod samples;
pub mod statement;
pub mod subjects;
mod text;
pub mod trace;
pub mod trade;
