//! What the services share, so that each of them is only its `Args` and `run`.

mod alarm;
pub mod broker;
pub mod clock;
pub mod discover;
pub mod disk;
pub mod driver;
pub mod limited;
pub mod members;
pub mod metrics;
pub mod nats;
pub mod outlet;
mod permissions;
pub mod ports;
pub mod process;
pub mod register;
pub mod service_api;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
pub mod whereabouts;
