//! JSON that operators write, as what the catalog keeps.

use proto::meta::policy_value::Kind;
use proto::meta::{PolicyItem, PolicyValue, SetLimits, TextList};
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// A policy's definition, sorted by key.
pub fn definition(json: &str) -> Result<Vec<PolicyItem>, Failure> {
    let mut items: Vec<PolicyItem> = Vec::new();
    for (key, value) in object(json, "a policy's definition")? {
        let kind = match value {
            Value::Bool(flag) => Kind::Flag(flag),
            Value::String(text) => Kind::Text(text),
            Value::Number(number) => Kind::Number(number.as_i64().ok_or_else(|| bad(&key, "is no whole number"))?),
            Value::Array(values) => {
                let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
                let items =
                    texts.collect::<Option<_>>().ok_or_else(|| bad(&key, "is a list of other things than texts"))?;
                Kind::List(TextList { items })
            }
            Value::Null | Value::Object(_) => {
                return Err(bad(&key, "is neither number, text, true or false, nor a list"));
            }
        };
        items.push(PolicyItem { key, value: Some(PolicyValue { kind: Some(kind) }) });
    }
    items.sort_by(|one, two| one.key.cmp(&two.key));
    Ok(items)
}

/// A policy's definition as JSON.
pub fn definition_json(items: &[PolicyItem]) -> Value {
    let value = |item: &PolicyItem| match item.value.as_ref().and_then(|value| value.kind.clone()) {
        Some(Kind::Number(number)) => number.into(),
        Some(Kind::Text(text)) => text.into(),
        Some(Kind::Flag(flag)) => flag.into(),
        Some(Kind::List(list)) => list.items.into(),
        None => Value::Null,
    };
    Value::Object(items.iter().map(|item| (item.key.clone(), value(item))).collect())
}

/// Limits from JSON: `{"max-connections": 5}`.
pub fn limits(json: &str) -> Result<SetLimits, Failure> {
    let mut limits = SetLimits::default();
    for (key, value) in object(json, "limits")? {
        let number = value.as_i64().ok_or_else(|| bad(&key, "is no whole number"))?;
        match key.as_str() {
            "max-connections" => limits.max_connections = Some(number),
            "max-queues" => limits.max_queues = Some(number),
            "max-channels" => limits.max_channels = Some(number),
            _ => {
                return Err(bad(
                    &key,
                    "is no limit; limits are max-connections, max-queues (vhosts) and max-channels (users)",
                ));
            }
        }
    }
    Ok(limits)
}

/// Limits as JSON.
pub fn limits_json(limits: &SetLimits) -> Value {
    let all = [
        ("max-connections", limits.max_connections),
        ("max-queues", limits.max_queues),
        ("max-channels", limits.max_channels),
    ];
    Value::Object(all.into_iter().filter_map(|(key, limit)| Some((key.to_owned(), limit?.into()))).collect())
}

/// A value that must be JSON, as it was written.
pub fn json_value(json: &str) -> Result<String, Failure> {
    let parsed: Result<Value, _> = serde_json::from_str(json);
    parsed.map_err(|error| Failure::new(Exit::Data, format!("the value is not JSON: {error}")))?;
    Ok(json.to_owned())
}

fn object(json: &str, what: &str) -> Result<serde_json::Map<String, Value>, Failure> {
    match serde_json::from_str(json) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::new(Exit::Data, format!("{what} must be a JSON object"))),
        Err(error) => Err(Failure::new(Exit::Data, format!("{what} is not JSON: {error}"))),
    }
}

fn bad(key: &str, problem: &str) -> Failure {
    Failure::new(Exit::Data, format!("'{key}' {problem}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn definitions_come_out_as_they_went_in() {
        let json = r#"{"ha-mode":"nodes","ha-params":["a"],"max-length":5,"z":true}"#;
        assert_eq!(definition_json(&definition(json).unwrap()).to_string(), json);
        for wrong in ["[]", "{", r#"{"a":1.5}"#, r#"{"a":{}}"#, r#"{"a":[1]}"#, r#"{"a":null}"#] {
            assert_eq!(definition(wrong).unwrap_err().exit, Exit::Data, "{wrong}");
        }
    }

    #[test]
    fn limits_are_known_by_name() {
        let json = r#"{"max-channels":3,"max-connections":-1}"#;
        assert_eq!(limits_json(&limits(json).unwrap()).to_string(), json);
        assert!(limits(r#"{"max-users":1}"#).is_err());
        assert!(json_value("{}").is_ok() && json_value("{").is_err());
    }
}
