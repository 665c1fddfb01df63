//! `tradenet order`: two things of one name, an order replica and an order.
//!
//! `tradenet order --id 3` runs a replica, `tradenet order 42` looks an order up. The rule: where a number stands it is the
//! look-up, whatever the environment says of replicas, so that it works in a replica's container too.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::market::OrderArgs;

/// Which of the two.
#[derive(Debug)]
pub(crate) enum Order {
    Replica(Box<tradenet_order::Args>),
    LookUp(OrderArgs),
}

impl FromArgMatches for Order {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if !matches.contains_id("number") {
            return tradenet_order::Args::from_arg_matches(matches).map(|args| Self::Replica(Box::new(args)));
        }
        if matches.value_source("id") == Some(ValueSource::CommandLine) {
            let both = "--id runs a replica and a number looks an order up: give one of them";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, both));
        }
        OrderArgs::from_arg_matches(matches).map(Self::LookUp)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Order {
    fn augment_args(command: Command) -> Command {
        let command = tradenet_order::Args::augment_args(command.next_help_heading("To run a replica"));
        OrderArgs::augment_args(command)
            .mut_arg("number", |number| number.required(false))
            .mut_arg("id", |id| id.required(false).required_unless_present("number"))
            .override_usage("tradenet order --id <N> [OPTIONS]\n       tradenet order <NUMBER> [OPTIONS]")
            .after_help(crate::exit::HELP)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
