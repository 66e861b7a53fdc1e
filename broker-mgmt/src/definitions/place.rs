//! A place in a JSON document, which knows its path, so that an error can say where.

use serde_json::{Map, Value};

use super::{DefinitionsError, NAME_MAX_BYTES};

/// A value and the way to it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub value: &'a Value,
    way: Way<'a>,
}

/// How a place was reached from the one above it.
#[derive(Clone, Copy)]
enum Way<'a> {
    Top,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

type Result<T> = std::result::Result<T, DefinitionsError>;

impl<'a> Place<'a> {
    /// The document itself.
    pub fn top(value: &'a Value) -> Place<'a> {
        Place { value, way: Way::Top }
    }

    /// What a key holds; none if it is not there or null.
    pub fn at<'b>(&'b self, key: &'b str) -> Option<Place<'b>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Place { value, way: Way::Key(self, key) })
    }

    /// What a key must hold.
    pub fn must<'b>(&'b self, key: &'b str) -> Result<Place<'b>> {
        self.at(key).ok_or_else(|| self.wrong(format!("'{key}' is missing")))
    }

    /// A value of this place's object or array.
    pub fn inside<'b>(&'b self, key: &'b str, value: &'b Value) -> Place<'b> {
        Place { value, way: Way::Key(self, key) }
    }

    /// Values of an array.
    pub fn items<'b>(&'b self) -> Result<impl Iterator<Item = Place<'b>>> {
        let Value::Array(values) = self.value else { return Err(self.expected("a list")) };
        Ok(values.iter().enumerate().map(move |(index, value)| Place { value, way: Way::Index(self, index) }))
    }

    /// An object's keys and values, by key.
    pub fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    /// Text.
    pub fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.expected("text"))
    }

    /// Text of a length that the protocol can carry.
    pub fn name(&self) -> Result<&'a str> {
        let text = self.text()?;
        if text.len() > NAME_MAX_BYTES {
            return Err(self.wrong(format!("is {} octets long, of at most {NAME_MAX_BYTES}", text.len())));
        }
        Ok(text)
    }

    /// true or false.
    pub fn flag(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// A whole number of 64 bits.
    pub fn integer(&self) -> Result<i64> {
        self.value.as_i64().ok_or_else(|| self.expected("a whole number of 64 bits"))
    }

    /// A name that a key must hold.
    pub fn name_at(&self, key: &str) -> Result<String> {
        self.must(key)?.name().map(str::to_owned)
    }

    /// Text that a key may hold.
    pub fn text_at(&self, key: &str) -> Result<Option<String>> {
        self.at(key).map(|place| place.text().map(str::to_owned)).transpose()
    }

    /// An error about this place.
    pub fn wrong(&self, problem: impl Into<String>) -> DefinitionsError {
        DefinitionsError::Place { path: self.path(), problem: problem.into() }
    }

    /// `queues[3].arguments.x-expires`
    pub fn path(&self) -> String {
        let mut path = String::new();
        self.write_path(&mut path);
        if path.is_empty() { "the document".into() } else { path }
    }

    fn expected(&self, what: &str) -> DefinitionsError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.wrong(format!("expected {what}, found {found}"))
    }

    /// Recursion is bounded by the depth that the JSON parser allows.
    fn write_path(&self, path: &mut String) {
        match self.way {
            Way::Top => {}
            Way::Key(above, key) => {
                above.write_path(path);
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Way::Index(above, index) => {
                above.write_path(path);
                path.push_str(&format!("[{index}]"));
            }
        }
    }
}
