//! The option that names all order replicas of an exchange, as every service takes it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use tradenet_schemas::ids::ReplicaId;

/// The ids of all order replicas of an exchange: at least one, each once, in order. Written as `1,2,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members(Vec<ReplicaId>);

impl Members {
    /// The ids, in order.
    #[must_use]
    pub fn ids(&self) -> &[ReplicaId] {
        &self.0
    }
    /// Whether `id` is one of them.
    #[must_use]
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.0.contains(&id)
    }
}

impl FromStr for Members {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ids = text.split(',').map(|id| id.trim().parse::<ReplicaId>()).collect::<Result<Vec<_>, _>>()?;
        let once: BTreeSet<_> = ids.iter().copied().collect();
        if once.len() < ids.len() {
            return Err("an id stands there twice; name each replica once, such as 1,2,3".to_owned());
        }
        Ok(Self(once.into_iter().collect()))
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ids.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_put_in_order_and_each_may_stand_there_once() {
        fn check(text: &str, expected: Result<&str, &str>) {
            let parsed = text.parse::<Members>().map(|members| members.to_string());
            match expected {
                Ok(ids) => assert_eq!(parsed.as_deref(), Ok(ids), "{text}"),
                Err(part) => assert!(parsed.as_ref().is_err_and(|error| error.contains(part)), "{text}: {parsed:?}"),
            }
        }
        check("3, 1,2", Ok("1,2,3"));
        check("7", Ok("7"));
        check("1,1", Err("twice"));
        check("", Err("whole number from 1"));
        check("0,1", Err("whole number from 1"));
        check("1;2", Err("whole number from 1"));
    }
}
