//! JSON from a client: read strictly, in linear time, with the path of what is wrong.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use dunlin_model::InvalidField;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Checks that `body` is one JSON object and nothing else: UTF-8 without a byte order mark, no member twice at any depth, no
/// lone surrogates, nothing behind it, not nested more than a hundred deep.
pub(crate) fn check(body: &[u8]) -> Result<(), InvalidField> {
    match body.trim_ascii_start().first() {
        Some(b'{') => {}
        None => return Err(InvalidField::new("the request's body", "must be a JSON object (it is empty)")),
        Some(_) => {
            return Err(InvalidField::new("the request's body", "must be a JSON object in UTF-8 without a byte order mark"));
        }
    }
    let path = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Strict { path: &path }.deserialize(&mut reader).and_then(|()| reader.end());
    read.map_err(|error| InvalidField::new(name_of(&path.borrow()), format!("is invalid: {error}")))
}

/// Reads a body that [`check`] accepted.
pub(crate) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, InvalidField> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| in_words(error, None))
}

/// Checks and reads a body.
pub(crate) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, InvalidField> {
    check(body)?;
    read(body)
}

/// Checks and reads a body that may be left out where no member is required.
pub(crate) fn read_optional_body<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, InvalidField> {
    if body.is_empty() { Ok(T::default()) } else { read_body(body) }
}

/// Reads a value that was cut out of a body, as the member called `within` or as the whole.
pub(crate) fn read_value<T: DeserializeOwned>(value: serde_json::Value, within: Option<&str>) -> Result<T, InvalidField> {
    serde_path_to_error::deserialize(value).map_err(|error| in_words(error, within))
}

fn in_words(error: serde_path_to_error::Error<serde_json::Error>, within: Option<&str>) -> InvalidField {
    let path = error.path().to_string();
    let field = match (within, path.as_str()) {
        (None, ".") => "the request's body".to_owned(),
        (Some(within), ".") => within.to_owned(),
        (None, path) => bounded(path),
        (Some(within), path) => format!("{within}.{}", bounded(path)),
    };
    InvalidField::new(field, format!("is invalid: {}", bounded(&error.inner().to_string())))
}

fn name_of(path: &[String]) -> String {
    if path.is_empty() { "the request's body".to_owned() } else { bounded(&path.join(".")) }
}

/// What a client sent, as far as it is fit to be repeated.
fn bounded(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(200).collect()
}

/// Reads any value and keeps none of it.
#[derive(Clone, Copy)]
struct Strict<'p> {
    /// Where the reader is; after an error, where it was found.
    path: &'p RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A member's name, borrowed from the body where it can be.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            self.path.borrow_mut().push(name.chars().take(64).collect());
            if seen.contains(&name) {
                return Err(M::Error::custom("the member is given twice"));
            }
            seen.insert(name);
            map.next_value_seed(self)?;
            self.path.borrow_mut().pop();
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let mut index = 0_usize;
        loop {
            self.path.borrow_mut().push(index.to_string());
            if list.next_element_seed(self)?.is_none() {
                self.path.borrow_mut().pop();
                return Ok(());
            }
            self.path.borrow_mut().pop();
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_one_well_formed_object_is_refused_with_its_place() {
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        for (body, field) in [
            (&b""[..], "the request's body"),
            (b"  ", "the request's body"),
            (b"[]", "the request's body"),
            (b"\"x\"", "the request's body"),
            (b"{} x", "the request's body"),
            (b"{}{}", "the request's body"),
            (b"{/**/}", "the request's body"),
            (b"\xef\xbb\xbf{}", "the request's body"),
            (b"\xff\xfe{\0}\0", "the request's body"),
            (b"{\"a\":\"\xff\"}", "a"),
            (br#"{"a":"\ud800"}"#, "a"),
            (br#"{"a":1e400}"#, "a"),
            (br#"{"a":NaN}"#, "a"),
            (br#"{"a":1,"b":2,"a":3}"#, "a"),
            (br#"{"a":{"b":[{"c":1,"c":2}]}}"#, "a.b.0.c"),
            (br#"{"a":1,"\u0061":2}"#, "a"),
            (br#"{"a":"#, "a"),
        ] {
            let error = check(body).expect_err(&String::from_utf8_lossy(body));
            assert_eq!(error.field, field, "{}", String::from_utf8_lossy(body));
        }
        assert!(check(deep.as_bytes()).expect_err("depth").field.starts_with("a.0.0"));
    }

    #[test]
    fn unknown_members_and_odd_names_pass() {
        check(br#" {"a":[1,2.5,null,true,"x",{"__proto__":{}}],"":{},"\ud83d\ude00":1} "#).unwrap();
    }

    #[test]
    fn ten_megabytes_take_linear_time() {
        let started = std::time::Instant::now();
        check(format!(r#"{{"a":"{}"}}"#, "x".repeat(10 << 20)).as_bytes()).unwrap();
        check(format!(r#"{{"a":[{}1]}}"#, "1,".repeat(1 << 20)).as_bytes()).unwrap();
        assert!(started.elapsed().as_secs() < 10);
    }
}
