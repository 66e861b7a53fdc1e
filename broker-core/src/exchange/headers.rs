//! Headers exchanges: a binding's arguments are compared with the message's headers.
//!
//! `x-match` says how: `all` (the default) and `any` leave out names that begin with `x-`, `all-with-x` and `any-with-x` do not. An argument
//! without a value asks only that the header is there; others compare by value, whatever the types.

use std::cmp::Ordering;

use imbl::OrdMap;

use super::SortedHeaders;
use super::targets::Target;
use crate::field_table::{Arguments, FieldTable, Value};
use crate::refusal::Refusal;

#[derive(Clone, Debug, Default)]
pub(crate) struct HeadersTable {
    /// Arguments sorted by name; how many bindings (with different routing keys) have them.
    rules: OrdMap<(Target, Arguments), (Match, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

impl HeadersTable {
    pub fn add(&mut self, arguments: &Arguments, target: Target) {
        let rule = Match::of(arguments.table());
        self.rules.entry((target, arguments.clone())).or_insert((rule, 0)).1 += 1;
    }

    pub fn remove(&mut self, arguments: &Arguments, target: &Target) {
        let key = (target.clone(), arguments.clone());
        match self.rules.get_mut(&key) {
            Some((_, count)) if *count > 1 => *count -= 1,
            Some(_) => {
                self.rules.remove(&key);
            }
            None => {}
        }
    }

    pub fn route<'t>(&'t self, headers: &SortedHeaders<'_>, found: &mut dyn FnMut(&'t Target)) {
        for ((target, arguments), (rule, _)) in &self.rules {
            if rule.matches(arguments.table(), headers) {
                found(target);
            }
        }
    }
}

impl Match {
    fn of(arguments: FieldTable<'_>) -> Match {
        match arguments.lookup(b"x-match") {
            Some(Value::LongString(b"any")) => Match::Any,
            Some(Value::LongString(b"all-with-x")) => Match::AllWithX,
            Some(Value::LongString(b"any-with-x")) => Match::AnyWithX,
            _ => Match::All,
        }
    }

    /// Arguments and headers are sorted by name, so one pass over both decides.
    fn matches(self, arguments: FieldTable<'_>, headers: &SortedHeaders<'_>) -> bool {
        let wants_all = matches!(self, Match::All | Match::AllWithX);
        let with_x = matches!(self, Match::AllWithX | Match::AnyWithX);
        let mut headers = headers.iter().peekable();
        for (name, wanted) in arguments {
            if name == b"x-match" || (!with_x && name.starts_with(b"x-")) {
                continue;
            }
            while headers.next_if(|(header, _)| (*header).cmp(name) == Ordering::Less).is_some() {}
            let matched = headers
                .next_if(|(header, _)| *header == name)
                .is_some_and(|(_, value)| wanted == Value::Void || wanted.same_value(value));
            if matched != wants_all {
                return matched;
            }
        }
        wants_all
    }
}

/// The refusal for a binding to a headers exchange whose `x-match` makes no sense.
pub fn check_match(arguments: FieldTable<'_>) -> Result<(), Refusal> {
    match arguments.lookup(b"x-match") {
        None | Some(Value::LongString(b"all" | b"any" | b"all-with-x" | b"any-with-x")) => Ok(()),
        Some(value @ Value::LongString(_)) => Err(Refusal::InvalidMatchValue(value.pretty().into_owned())),
        Some(value) => Err(Refusal::InvalidMatchType(value.type_name(), value.pretty().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_table::TableBuilder;
    use crate::name::QueueId;

    fn table(fields: &[(&str, Value<'_>)]) -> TableBuilder {
        fields.iter().fold(TableBuilder::default(), |builder, (name, value)| builder.with(name, *value))
    }

    fn matches(arguments: &[(&str, Value<'_>)], headers: &[(&str, Value<'_>)]) -> bool {
        let arguments = table(arguments);
        let headers = table(headers);
        let mut rules = HeadersTable::default();
        rules.add(&Arguments::sorted(FieldTable::parse(arguments.octets()).unwrap()), Target::Queue(QueueId(1)));
        let mut sorted: SortedHeaders<'_> = FieldTable::parse(headers.octets()).unwrap().iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let mut found = 0;
        rules.route(&sorted, &mut |_| found += 1);
        found == 1
    }

    const ONE: Value<'static> = Value::Int32(1);
    const TWO: Value<'static> = Value::Int32(2);
    const ANY: (&str, Value<'static>) = ("x-match", Value::LongString(b"any"));
    const ALL: (&str, Value<'static>) = ("x-match", Value::LongString(b"all"));

    #[test]
    fn all_wants_every_argument() {
        for x_match in [&[][..], &[ALL]] {
            let arguments = [x_match, &[("b", TWO), ("a", ONE)]].concat();
            assert!(matches(&arguments, &[("a", ONE), ("b", TWO), ("c", ONE)]));
            assert!(!matches(&arguments, &[("a", ONE)]));
            assert!(!matches(&arguments, &[("a", ONE), ("b", ONE)]));
            assert!(!matches(&arguments, &[]));
        }
        assert!(matches(&[], &[]) && matches(&[ALL], &[("a", ONE)]));
    }

    #[test]
    fn any_wants_one_argument() {
        let arguments = [ANY, ("a", ONE), ("b", TWO)];
        assert!(matches(&arguments, &[("a", ONE)]));
        assert!(matches(&arguments, &[("a", TWO), ("b", TWO)]));
        assert!(!matches(&arguments, &[("a", TWO), ("b", ONE)]));
        assert!(!matches(&[ANY], &[("a", ONE)]));
    }

    #[test]
    fn names_with_x_count_only_where_asked() {
        let x = ("x-k", ONE);
        assert!(matches(&[ALL, x], &[]));
        assert!(!matches(&[ANY, x], &[x]));
        let all_with_x = ("x-match", Value::LongString(b"all-with-x"));
        let any_with_x = ("x-match", Value::LongString(b"any-with-x"));
        assert!(!matches(&[all_with_x, x], &[]) && matches(&[all_with_x, x], &[x]));
        assert!(!matches(&[any_with_x, x], &[]) && matches(&[any_with_x, x], &[x]));
    }

    #[test]
    fn void_asks_for_presence_and_numbers_compare_by_value() {
        assert!(matches(&[("a", Value::Void)], &[("a", Value::LongString(b"whatever"))]));
        assert!(!matches(&[("a", Value::Void)], &[("b", ONE)]));
        assert!(matches(&[("a", ONE)], &[("a", Value::Int64(1))]));
        assert!(matches(&[("a", ONE)], &[("a", Value::Double(1.0))]));
        assert!(!matches(&[("a", ONE)], &[("a", Value::LongString(b"1"))]));
    }

    #[test]
    fn only_the_four_ways_are_accepted() {
        let check = |value| check_match(FieldTable::parse(table(&[("x-match", value)]).octets()).unwrap());
        assert_eq!(check(Value::LongString(b"any-with-x")), Ok(()));
        assert_eq!(check(Value::LongString(b"some")), Err(Refusal::InvalidMatchValue("some".into())));
        assert_eq!(check(ONE), Err(Refusal::InvalidMatchType("signedint", "1".into())));
    }
}
