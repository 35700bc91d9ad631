//! YAML as a tree. The parser hands on events; what anchors and aliases make of them is decided, and bounded, here.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::node::{Content, DEPTH_MAX, FILE_BYTES_MAX, Member, NODES_MAX, Node, Place, Problems, Scalar, Style, TEXT_BYTES_MAX};

/// Reads the one document of `text`.
pub(crate) fn parse(file: &Place, text: &str) -> Result<Node, Problems> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Problems::one(file.clone(), format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    let mut builder = Builder { file, open: Vec::new(), anchors: HashMap::new(), nodes: 0, bytes: 0, root: None };
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| Problems::one(file.at(error.marker().line()), format!("is not YAML: {}", error.info())))?;
        builder.take(event, span)?;
    }
    builder.root.ok_or_else(|| Problems::one(file.clone(), "is empty"))
}

struct Builder<'a> {
    file: &'a Place,
    open: Vec<Open>,
    /// What each anchor stands for, once it is complete: an alias within its own anchor finds nothing.
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
    root: Option<Node>,
}

struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

/// A list or a mapping that is being read.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
    /// The name of the member whose value comes next.
    name: Option<(String, Place)>,
    /// What was counted before it began.
    nodes: usize,
    bytes: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problems> {
        let place = self.file.at(span.start.line());
        match event {
            Event::Alias(anchor) => {
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(Problems::one(place, "an alias must not stand within what it stands for"));
                };
                let node = anchored.node.clone();
                (self.nodes, self.bytes) = (self.nodes + anchored.nodes, self.bytes + anchored.bytes);
                self.check(&place)?;
                self.place(node, 0, (self.nodes, self.bytes))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let before = self.count(&place, text.len())?;
                let as_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let style = if style == ScalarStyle::Plain && !as_text { Style::Plain } else { Style::Quoted };
                let scalar = Scalar { text: text.into_owned(), style };
                self.place(Node { place, content: Content::Scalar(scalar) }, anchor, before)
            }
            Event::SequenceStart(anchor, _) => self.begin(place, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(place, anchor, Content::Members(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let node = Node { place: open.place, content: open.content };
                    self.place(node, open.anchor, (open.nodes, open.bytes))
                }
                None => Ok(()),
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Problems::one(place, "begins a second document; a project is one"))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, content: Content) -> Result<(), Problems> {
        let (nodes, bytes) = self.count(&place, 0)?;
        if self.open.len() == DEPTH_MAX {
            return Err(Problems::one(place, format!("lies deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(Open { place, anchor, content, name: None, nodes, bytes });
        Ok(())
    }

    /// Counts one value; returns what was counted before.
    fn count(&mut self, place: &Place, bytes: usize) -> Result<(usize, usize), Problems> {
        let before = (self.nodes, self.bytes);
        (self.nodes, self.bytes) = (self.nodes + 1, self.bytes + bytes);
        self.check(place)?;
        Ok(before)
    }

    fn check(&self, place: &Place) -> Result<(), Problems> {
        if self.nodes > NODES_MAX || self.bytes > TEXT_BYTES_MAX {
            let what = format!("the document has more than {NODES_MAX} values or {TEXT_BYTES_MAX} bytes, aliases counted");
            return Err(Problems::one(place.clone(), what));
        }
        Ok(())
    }

    /// Puts a complete value where it belongs; `before` is what was counted before it began.
    fn place(&mut self, node: Node, anchor: usize, before: (usize, usize)) -> Result<(), Problems> {
        if anchor > 0 {
            let (nodes, bytes) = (self.nodes - before.0, self.bytes - before.1);
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes });
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Scalar(_) => {}
            Content::Members(members) => match open.name.take() {
                None => match node.content {
                    Content::Scalar(scalar) => open.name = Some((scalar.text, node.place)),
                    Content::List(_) | Content::Members(_) => return Err(Problems::one(node.place, "a name must be one word")),
                },
                Some((name, place)) if name == "<<" => merge(members, &place, node)?,
                Some((name, place)) => {
                    if let Some(other) = members.iter().find(|member| member.name == name && !member.merged) {
                        return Err(Problems::one(place, format!("'{name}' is there already, on line {}", other.place.line)));
                    }
                    members.retain(|member| member.name != name);
                    members.push(Member { name, place, value: node, merged: false });
                }
            },
        }
        Ok(())
    }
}

/// `<<`: the members of another mapping, or of several, where there are none of the same names.
fn merge(members: &mut Vec<Member>, place: &Place, node: Node) -> Result<(), Problems> {
    let sources = match node.content {
        Content::List(items) => items,
        Content::Members(_) | Content::Scalar(_) => vec![node],
    };
    for source in sources {
        let Content::Members(others) = source.content else {
            return Err(Problems::one(place.clone(), "'<<' must name a set of members"));
        };
        for other in others {
            if !members.iter().any(|member| member.name == other.name) {
                members.push(Member { merged: true, ..other });
            }
        }
    }
    Ok(())
}
