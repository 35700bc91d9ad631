//! TOML as a tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::node::{Content, FILE_BYTES_MAX, Member, Node, Place, Problems, Style};

/// Reads the document `text`.
pub(crate) fn parse(file: &Place, text: &str) -> Result<Node, Problems> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Problems::one(file.clone(), format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    let lines = Lines { file, text };
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or_else(|| file.clone(), |span| lines.at(span.start));
        Problems::one(place, format!("is not TOML: {}", error.message().trim().replace('\n', "; ")))
    })?;
    Ok(Node { place: file.at(1), content: lines.table(table.get_ref()) })
}

struct Lines<'a> {
    file: &'a Place,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        self.file.at(1 + before.iter().filter(|byte| **byte == b'\n').count())
    }

    fn table(&self, table: &DeTable<'_>) -> Content {
        let mut members: Vec<Member> = table
            .iter()
            .map(|(name, value)| Member {
                name: name.get_ref().to_string(),
                place: self.at(name.span().start),
                value: self.node(value),
                merged: false,
            })
            .collect();
        members.sort_by_key(|member| member.place.line);
        Content::Members(members)
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let place = self.at(value.span().start);
        let plain = |text: String| Node::scalar(place.clone(), text, Style::Plain);
        let content = match value.get_ref() {
            DeValue::String(text) => return Node::scalar(place, text.as_ref(), Style::Quoted),
            DeValue::Integer(integer) => {
                let parsed = i64::from_str_radix(integer.as_str(), integer.radix());
                return plain(parsed.map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string()));
            }
            DeValue::Float(float) => return plain(float.as_str().to_owned()),
            DeValue::Boolean(boolean) => return plain(boolean.to_string()),
            DeValue::Datetime(time) => return Node::scalar(place, time.to_string(), Style::Quoted),
            DeValue::Array(items) => Content::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node { place, content }
    }
}
