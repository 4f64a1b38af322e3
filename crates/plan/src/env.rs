//! The variables that a stage's instructions see.

use std::collections::HashMap;

use crate::{Variable, VariableOrigin};

/// Names and values, in the order of each name's last assignment: the order in which a RUN gets them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: HashMap<String, Assigned>,
    assignments: u64,
}

#[derive(Clone, Debug)]
struct Assigned {
    value: String,
    origin: VariableOrigin,
    /// How many assignments there were before this one.
    at: u64,
}

impl Environment {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|assigned| assigned.value.as_str())
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>, origin: VariableOrigin) {
        let assigned = Assigned { value: value.into(), origin, at: self.assignments };
        self.assignments += 1;
        self.variables.insert(name.into(), assigned);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Takes over the `NAME=value` pairs of an image's config.
    pub(crate) fn set_pairs(&mut self, pairs: &[String]) {
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.set(name, value, VariableOrigin::Env);
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// How long all of it is.
    pub(crate) fn bytes(&self) -> usize {
        self.variables.iter().map(|(name, assigned)| name.len() + assigned.value.len()).sum()
    }

    pub(crate) fn to_vec(&self) -> Vec<Variable> {
        let mut ordered: Vec<_> = self.variables.iter().collect();
        ordered.sort_unstable_by_key(|(_, assigned)| assigned.at);
        let variable = |(name, assigned): (&String, &Assigned)| Variable {
            name: name.clone(),
            value: assigned.value.clone(),
            origin: assigned.origin,
        };
        ordered.into_iter().map(variable).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_the_last_assignment() {
        let mut env = Environment::default();
        env.set_pairs(&["A=1".to_owned(), "B=2=3".to_owned(), "C".to_owned()]);
        env.set("A", "4", VariableOrigin::Arg);
        let text: Vec<_> =
            env.to_vec().into_iter().map(|v| format!("{}={} {:?}", v.name, v.value, v.origin)).collect();
        assert_eq!(text, ["B=2=3 Env", "C= Env", "A=4 Arg"]);
    }
}
