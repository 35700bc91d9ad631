//! What stands between `${` and `}`.

/// A piece of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// As it is written.
    Text(String),
    /// A variable, as it is written (`${…}`), and what it says.
    Variable(String, Expression),
}

/// What a variable says.
#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    /// Text in quotes, or a word that is given to a function.
    Text(String),
    /// `vars.a[0].b`.
    Path(Vec<Step>),
    /// `env('NAME', 'default')`.
    Call { name: String, arguments: Vec<Expression> },
}

/// One step of a path.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

impl Step {
    /// As it is written, an index as `[…]`.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Index(_) => "[…]",
        }
    }
}

/// Functions may be given the results of others, this deep.
const DEPTH_MAX: usize = 8;

/// Takes a text apart.
pub(super) fn split(text: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(begin) = rest.find("${") {
        if begin > 0 {
            parts.push(Part::Text(rest[..begin].to_owned()));
        }
        let inner = &rest[begin + 2..];
        let end = end(inner).ok_or_else(|| format!("'{}' has no closing brace", shortened(&rest[begin..])))?;
        let written = format!("${{{}}}", &inner[..end]);
        let mut reader = Reader { text: &inner[..end], depth: 0 };
        let expression = reader.expression().map_err(|problem| format!("{written}: {problem}"))?;
        if !reader.text.trim().is_empty() {
            return Err(format!("{written}: '{}' is not understood", reader.text.trim()));
        }
        parts.push(Part::Variable(written, expression));
        rest = &inner[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Where the closing brace is; one in quotes is not it.
fn end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '}') => return Some(index),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

struct Reader<'a> {
    text: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn expression(&mut self) -> Result<Expression, String> {
        self.space();
        if let Some(text) = self.quoted()? {
            return Ok(Expression::Text(text));
        }
        let name = self.name().ok_or("a name is missing")?;
        if self.skip('(') { self.call(name) } else { self.path(name) }
    }

    fn call(&mut self, name: String) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("functions lie too deep in each other".to_owned());
        }
        let mut arguments = Vec::new();
        loop {
            self.space();
            if self.skip(')') {
                break;
            }
            arguments.push(self.argument()?);
            self.space();
            if !self.skip(',') && !self.text.starts_with(')') {
                return Err("a closing parenthesis is missing".to_owned());
            }
        }
        self.depth -= 1;
        Ok(Expression::Call { name, arguments })
    }

    /// Text in quotes, a function, a path, or a bare word such as in `env(NAME)` and `file(./x)`.
    fn argument(&mut self) -> Result<Expression, String> {
        if let Some(text) = self.quoted()? {
            return Ok(Expression::Text(text));
        }
        let bare = &self.text[..self.text.find([',', '(', ')']).unwrap_or(self.text.len())];
        let is_path = ["vars.", "this.", "that.", "resources."].iter().any(|begin| bare.starts_with(begin));
        if is_path || self.text[bare.len()..].starts_with('(') {
            return self.expression();
        }
        let word = bare.trim().to_owned();
        self.text = &self.text[bare.len()..];
        if word.is_empty() { Err("a word is missing".to_owned()) } else { Ok(Expression::Text(word)) }
    }

    fn path(&mut self, first: String) -> Result<Expression, String> {
        let mut steps = vec![Step::Name(first)];
        loop {
            if self.skip('.') {
                steps.push(Step::Name(self.name().ok_or("a name is missing after '.'")?));
            } else if self.skip('[') {
                steps.push(match self.quoted()? {
                    Some(name) => Step::Name(name),
                    None => {
                        let digits = &self.text[..self.text.find(']').unwrap_or(0)];
                        let index = digits.trim().parse().map_err(|_| "between '[' and ']' there must be a number")?;
                        self.text = &self.text[digits.len()..];
                        Step::Index(index)
                    }
                });
                if !self.skip(']') {
                    return Err("a ']' is missing".to_owned());
                }
            } else {
                return Ok(Expression::Path(steps));
            }
        }
    }

    fn space(&mut self) {
        self.text = self.text.trim_start();
    }

    fn skip(&mut self, c: char) -> bool {
        let rest = self.text.strip_prefix(c);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    fn name(&mut self) -> Option<String> {
        let length = self.text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(length);
        self.text = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn quoted(&mut self) -> Result<Option<String>, String> {
        let Some(quote) = self.text.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Ok(None) };
        let rest = &self.text[1..];
        let end = rest.find(quote).ok_or("a closing quote is missing")?;
        self.text = &rest[end + 1..];
        Ok(Some(rest[..end].to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(steps: &[&str]) -> Expression {
        Expression::Path(steps.iter().map(|step| Step::Name((*step).to_owned())).collect())
    }

    fn call(name: &str, arguments: Vec<Expression>) -> Expression {
        Expression::Call { name: name.to_owned(), arguments }
    }

    fn word(text: &str) -> Expression {
        Expression::Text(text.to_owned())
    }

    #[test]
    fn a_text_comes_apart_into_variables_and_what_is_between() {
        let parts = split("a-${vars.x}-${env('A}', \"b\")}").unwrap();
        let expected = [
            Part::Text("a-".to_owned()),
            Part::Variable("${vars.x}".to_owned(), path(&["vars", "x"])),
            Part::Text("-".to_owned()),
            Part::Variable("${env('A}', \"b\")}".to_owned(), call("env", vec![word("A}"), word("b")])),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn every_form_is_read() {
        let one = |text: &str| match split(text).unwrap().remove(0) {
            Part::Variable(_, expression) => expression,
            Part::Text(text) => panic!("{text}"),
        };
        assert_eq!(one("${env(HOME)}"), call("env", vec![word("HOME")]));
        assert_eq!(one("${file(./a b)}"), call("file", vec![word("./a b")]));
        assert_eq!(one("${json(file('a.json'))}"), call("json", vec![call("file", vec![word("a.json")])]));
        assert_eq!(one("${env('A', vars.b)}"), call("env", vec![word("A"), path(&["vars", "b"])]));
        assert_eq!(one("${ resources.my-api.props['a.b'] }"), path(&["resources", "my-api", "props", "a.b"]));
        let Expression::Path(steps) = one("${vars.list[2].x}") else { panic!("a path") };
        assert_eq!(steps[2], Step::Index(2));
    }

    #[test]
    fn what_is_not_understood_says_where() {
        for (text, problem) in [
            ("${vars.x", "'${vars.x' has no closing brace"),
            ("${}", "${}: a name is missing"),
            ("${env('A'}", "${env('A'}: a closing parenthesis is missing"),
            ("${vars.}", "${vars.}: a name is missing after '.'"),
            ("${vars.a || 'b'}", "${vars.a || 'b'}: '|| 'b'' is not understood"),
            ("${vars[x]}", "${vars[x]}: between '[' and ']' there must be a number"),
        ] {
            assert_eq!(split(text).unwrap_err(), problem);
        }
    }
}
