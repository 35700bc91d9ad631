//! Parameters of the query, as the SDKs write them.

use dunlin_model::InvalidField;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::json;
use crate::routes::escapes_are_whole;

/// The query's parameters, each given once.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn read(raw: Option<&str>) -> Result<Self, InvalidField> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in raw.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(InvalidField::new("the query", "is invalid: it is not percent-encoded UTF-8"));
            };
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(InvalidField::new(printable(&name), "is given twice"));
            }
            if pairs.len() == 100 {
                return Err(InvalidField::new("the query", "has more than 100 parameters"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// A parameter; absent and empty are the same.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(other, value)| (other == name && !value.is_empty()).then_some(value.as_str()))
    }

    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, InvalidField> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidField::new(name, format!("must be a whole number (actual: {})", printable(text))));
        }
        text.parse().map(Some).map_err(|_| InvalidField::new(name, format!("is out of range (actual: {})", printable(text))))
    }

    /// Python says `True`, Node says `true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, InvalidField> {
        match self.text(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false),
            Some(text) => Err(InvalidField::new(name, format!("must be true or false (actual: {})", printable(text)))),
        }
    }

    /// Lists arrive as JSON in a string.
    pub(crate) fn list<T: DeserializeOwned>(&self, name: &str) -> Result<Option<Vec<T>>, InvalidField> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value =
            serde_json::from_str(text).map_err(|error| InvalidField::new(name, format!("must be a JSON list: {error}")))?;
        json::read_value(value, Some(name)).map(Some)
    }

    /// RFC 3339.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, InvalidField> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong =
            |_| InvalidField::new(name, format!("must be a time like 2026-01-02T03:04:05Z (actual: {})", printable(text)));
        text.parse().map(Some).map_err(wrong)
    }

    /// Milliseconds since 1970.
    pub(crate) fn time_ms(&self, name: &str) -> Result<Option<Timestamp>, InvalidField> {
        let Some(ms) = self.integer(name)? else { return Ok(None) };
        Timestamp::from_millisecond(ms).map(Some).map_err(|_| InvalidField::new(name, format!("is out of range (actual: {ms})")))
    }
}

fn decode(text: &str) -> Option<String> {
    if !escapes_are_whole(text) {
        return None;
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// What a client sent, as far as it is fit to be repeated.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_each_sdk_writes_them() {
        let query =
            Query::read(Some("limit=5&withAllActive=True&nextToken=&prefix=a+b%2B&instanceIds=%5B%22x%22%5D&flag")).unwrap();
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert!(query.flag("withAllActive").unwrap() && !query.flag("nothing").unwrap());
        assert_eq!(query.text("nextToken"), None);
        assert_eq!(query.text("prefix"), Some("a b+"));
        assert_eq!(query.list::<String>("instanceIds").unwrap(), Some(vec!["x".to_owned()]));
    }

    #[test]
    fn wrong_parameters_are_named() {
        for raw in ["a=%", "a=%f", "a=%ff", "a=1&a=2"] {
            assert!(Query::read(Some(raw)).is_err(), "{raw}");
        }
        let query = Query::read(Some("a=1e3&b=99999999999999999999&c=yes&d=%5B1%5D&e=%7B&f=tomorrow&g=+5&h=-")).unwrap();
        assert_eq!(query.integer("a").unwrap_err().field, "a");
        assert_eq!(query.integer("b").unwrap_err().field, "b");
        assert_eq!(query.flag("c").unwrap_err().field, "c");
        assert!(query.list::<String>("d").unwrap_err().field.starts_with('d'));
        assert_eq!(query.list::<String>("e").unwrap_err().field, "e");
        assert_eq!(query.time("f").unwrap_err().field, "f");
        assert_eq!(query.integer("g").unwrap_err().field, "g");
        assert_eq!(query.integer("h").unwrap_err().field, "h");
    }
}
