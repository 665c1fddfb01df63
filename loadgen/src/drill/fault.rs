//! What is done to whom: `kill:leader`, as people write it.
//!
//! The target is a role and not a name where that matters: who leads is known only at the moment of the fault.

use std::fmt;
use std::str::FromStr;

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ended without a chance to tidy up (SIGKILL), and started again later.
    Kill,
    /// Asked to end (SIGTERM), and started again later.
    Stop,
    /// Asked to end, and started again as soon as it has.
    Restart,
    /// Hung (SIGSTOP), and woken later: its connections stay open, and it believes that no time has passed.
    Pause,
    /// Cut off its network and joined to it later. Only for containers.
    Cut,
}

/// All actions and their names.
const ACTIONS: [(Action, &str); 5] = [
    (Action::Kill, "kill"),
    (Action::Stop, "stop"),
    (Action::Restart, "restart"),
    (Action::Pause, "pause"),
    (Action::Cut, "cut"),
];

/// To whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The order replica that leads at that moment.
    Leader,
    /// An order replica that does not, at random.
    Follower,
    /// Any order replica, at random.
    Order,
    /// A catalog, at random.
    Catalog,
    /// A frontend, at random.
    Frontend,
    /// Every order replica, catalog and frontend at once.
    All,
    /// All of them, and the broker.
    Everything,
    /// The service of this name.
    Named(String),
}

/// A fault: an action and a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is done.
    pub action: Action,
    /// To whom.
    pub target: Target,
}

impl Target {
    /// Whether the service `name` may be meant.
    pub(crate) fn fits(&self, name: &str, leader: Option<&str>) -> bool {
        let is = |role: &str| name.strip_prefix(role).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        match self {
            Self::Leader => Some(name) == leader,
            Self::Follower => is("order") && Some(name) != leader,
            Self::Order => is("order"),
            Self::Catalog => is("catalog"),
            Self::Frontend => is("frontend"),
            Self::All => is("order") || is("catalog") || is("frontend"),
            Self::Everything => is("nats") || Self::All.fits(name, leader),
            Self::Named(wanted) => name == wanted,
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = "write ACTION:TARGET, an action of kill, stop, restart, pause, cut, and a target of leader, follower, \
                    order, catalog, frontend, all, everything (the broker as well) or a service's name such as order-2";
        let (action, target) = text.split_once(':').ok_or_else(|| format!("`{text}` has no colon: {help}"))?;
        let action = ACTIONS.iter().find(|(_, name)| *name == action).ok_or_else(|| format!("`{action}`: {help}"))?.0;
        let target = match target {
            "leader" => Target::Leader,
            "follower" => Target::Follower,
            "order" => Target::Order,
            "catalog" => Target::Catalog,
            "frontend" => Target::Frontend,
            "all" => Target::All,
            "everything" => Target::Everything,
            "" => return Err(format!("`{text}` names no target: {help}")),
            name => Target::Named(name.to_owned()),
        };
        Ok(Self { action, target })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ACTIONS.iter().find(|(action, _)| action == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Order => "order",
            Self::Catalog => "catalog",
            Self::Frontend => "frontend",
            Self::All => "all",
            Self::Everything => "everything",
            Self::Named(name) => name,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.action, self.target)
    }
}

/// A fault and whom it hit, for people.
pub(super) fn label(fault: &Fault, victims: &[String]) -> String {
    match (&fault.target, victims) {
        (Target::Named(name), _) => format!("{} {name}", fault.action),
        (target, [victim]) => format!("{} {target} ({victim})", fault.action),
        (target, _) => format!("{} {target}", fault.action),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_is_written() {
        for text in [
            "kill:leader",
            "pause:follower",
            "stop:catalog",
            "restart:order-2",
            "kill:all",
            "kill:everything",
            "cut:frontend",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_fault_is_refused_with_help() {
        for text in ["", "kill", "kill:", "burn:leader", ":leader"] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains("follower"), "{text}: {error}");
        }
    }

    #[test]
    fn a_target_fits_the_services_of_its_role() {
        let names = ["nats", "catalog-1", "order-1", "order-2", "order-3", "frontend-1"];
        for (target, expected) in [
            ("leader", vec!["order-2"]),
            ("follower", vec!["order-1", "order-3"]),
            ("order", vec!["order-1", "order-2", "order-3"]),
            ("catalog", vec!["catalog-1"]),
            ("frontend", vec!["frontend-1"]),
            ("all", vec!["catalog-1", "order-1", "order-2", "order-3", "frontend-1"]),
            ("everything", vec!["nats", "catalog-1", "order-1", "order-2", "order-3", "frontend-1"]),
            ("nats", vec!["nats"]),
            ("order-9", vec![]),
        ] {
            let target = format!("kill:{target}").parse::<Fault>().unwrap().target;
            let found: Vec<&str> = names.into_iter().filter(|name| target.fits(name, Some("order-2"))).collect();
            assert_eq!(found, expected, "{target}");
        }
    }
}
