//! Small XML documents of a router, with a bounded depth.

use xml::reader::{EventReader, XmlEvent};

/// Depth of the deepest element, 32. A description nests devices three deep, ten elements.
pub(super) const MAX_DEPTH: usize = 32;

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum XmlError {
    #[error("XML: {0}")]
    Syntax(#[from] xml::reader::Error),
    #[error("XML is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// UPnP has no documents with a type. Its entities can be longer than the document.
    #[error("XML has a document type")]
    DocumentType,
}

/// An element with its text and the elements in it.
#[derive(Debug, Default)]
pub(super) struct Element {
    name: String,
    pub(super) text: String,
    elements: Vec<Element>,
}

impl Element {
    /// Returns the first element of a name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.elements.iter().find(|element| element.name == name)
    }

    /// Returns the elements `name` in the first element `list`.
    pub(super) fn children<'a>(
        &'a self,
        list: &str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Self> {
        let list = self.child(list).into_iter();
        let elements = list.flat_map(|list| &list.elements);
        elements.filter(move |element| element.name == name)
    }
}

/// Reads a document and returns its root. The length of `text` is bounded by its caller.
pub(super) fn parse(text: &str) -> Result<Element, XmlError> {
    if text.contains("<!DOCTYPE") {
        return Err(XmlError::DocumentType);
    }
    // The document, and the elements that are open.
    let mut document = Element::default();
    let mut open: Vec<Element> = Vec::new();
    for event in EventReader::new(text.as_bytes()) {
        match event? {
            XmlEvent::StartElement { name, .. } => {
                if open.len() == MAX_DEPTH {
                    return Err(XmlError::TooDeep);
                }
                open.push(Element {
                    name: name.local_name,
                    ..Element::default()
                });
            }
            XmlEvent::EndElement { .. } => {
                if let Some(closed) = open.pop() {
                    let parent = open.last_mut().unwrap_or(&mut document);
                    parent.elements.push(closed);
                }
            }
            XmlEvent::Characters(text) | XmlEvent::CData(text) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&text);
                }
            }
            XmlEvent::EndDocument => break,
            _ => {}
        }
    }
    Ok(document.elements.into_iter().next().unwrap_or_default())
}
