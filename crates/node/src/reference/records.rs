//! The records of `--json`, read from the source of their types: names, documentation and fields as
//! serde writes them. Two pages are made of them: a list for people and a schema for programs.

/// Records of one concern: the name of their type and its source.
pub(super) struct Part {
    pub(super) title: &'static str,
    pub(super) types: &'static [(&'static str, &'static str)],
}

macro_rules! event {
    ($file:literal) => {
        include_str!(concat!("../../../manager/src/event/", $file, ".rs"))
    };
}

/// All records that a command prints.
pub(super) const PARTS: [Part; 17] = [
    Part {
        title: "Failures",
        types: &[("Failure", include_str!("../error.rs"))],
    },
    Part {
        title: "Standard output",
        types: &[("Dropped", include_str!("../output/mod.rs"))],
    },
    Part {
        title: "Commands that run a node",
        types: &[
            ("Made", include_str!("../init.rs")),
            ("Line", include_str!("../run/lines.rs")),
        ],
    },
    Part {
        title: "Addresses to listen on",
        types: &[("ListenerEvent", event!("listener"))],
    },
    Part {
        title: "Connections",
        types: &[("ConnectionEvent", event!("connection"))],
    },
    Part {
        title: "Discovery",
        types: &[("DiscoveryEvent", event!("discovery"))],
    },
    Part {
        title: "Streams",
        types: &[("StreamEvent", event!("stream"))],
    },
    Part {
        title: "Topics",
        types: &[("GossipEvent", event!("gossip"))],
    },
    Part {
        title: "Invites",
        types: &[("InviteEvent", event!("invite"))],
    },
    Part {
        title: "Blobs of a node",
        types: &[("BlobEvent", event!("blob"))],
    },
    Part {
        title: "Commands that ask a running node",
        types: &[
            ("StatusPage", include_str!("../api/status.rs")),
            ("ConnectionPage", include_str!("../api/connection.rs")),
            ("PeerChange", include_str!("../api/peers.rs")),
            ("TopicPage", include_str!("../api/topics.rs")),
            ("Pong", include_str!("../api/ping.rs")),
            ("Line", include_str!("../ping.rs")),
        ],
    },
    Part {
        title: "Blob commands",
        types: &[("Line", include_str!("../blob/lines.rs"))],
    },
    Part {
        title: "Sending and receiving",
        types: &[("Line", include_str!("../share/lines.rs"))],
    },
    Part {
        title: "Measurements",
        types: &[
            ("Report", include_str!("../probe.rs")),
            ("NetcheckPage", include_str!("../netcheck/page.rs")),
            ("Line", include_str!("../perf/client.rs")),
        ],
    },
    Part {
        title: "Configuration",
        types: &[
            ("Effective", include_str!("../api/node.rs")),
            ("Accepted", include_str!("../config.rs")),
            ("Imported", include_str!("../config.rs")),
        ],
    },
    Part {
        title: "Files for people",
        types: &[
            ("DiagWritten", include_str!("../diag/mod.rs")),
            ("ManualWritten", include_str!("../man.rs")),
        ],
    },
    Part {
        title: "The demonstration",
        types: &[("Line", include_str!("../demo/lines.rs"))],
    },
];

/// Types of fields that are structs, and where they are.
const STRUCTS: [(&str, &str); 21] = [
    ("Stack", include_str!("../text.rs")),
    ("Usage", include_str!("../blob/lines.rs")),
    ("progress::Line", include_str!("../progress.rs")),
    ("Source", include_str!("../progress.rs")),
    ("DiscoveryPage", include_str!("../api/status.rs")),
    ("BootNodePage", include_str!("../api/status.rs")),
    ("BootListPage", include_str!("../api/status.rs")),
    ("OverlayPage", include_str!("../api/status.rs")),
    ("HeldPage", include_str!("../api/status.rs")),
    ("ResourcePage", include_str!("../api/status.rs")),
    ("ConnectionPage", include_str!("../api/connection.rs")),
    ("CircuitLimitPage", include_str!("../api/connection.rs")),
    ("Pings", include_str!("../ping.rs")),
    ("NetworkPage", include_str!("../netcheck/page.rs")),
    ("AdvicePage", include_str!("../netcheck/page.rs")),
    ("ProtocolPage", include_str!("../netcheck/page.rs")),
    ("ServerPage", include_str!("../netcheck/page.rs")),
    ("Check", include_str!("../demo/lines.rs")),
    ("Summary", include_str!("../demo/lines.rs")),
    ("EdgeReport", include_str!("../demo/lines.rs")),
    ("PeerInfo", include_str!("../../../manager/src/status.rs")),
];

/// Fields that code writes without a derive, by their type or by the function that writes them. The
/// tests compare what commands print with the schema, so that these cannot go out of date unnoticed.
const BY_HAND: [(&str, &[(&str, &str)]); 5] = [
    (
        "Connection",
        &[
            ("peer", "String"),
            ("connection", "String"),
            ("address", "String"),
            ("inbound", "bool"),
            ("transport", "String"),
            ("security", "String"),
            ("muxer", "String"),
            ("path", "String"),
            ("relay", "Option<String>"),
            ("rtt_ms", "Option<f64>"),
        ],
    ),
    (
        "Message",
        &[
            ("peer", "String"),
            ("topic", "String"),
            ("propagated_by", "String"),
            ("id", "String"),
            ("text", "Omitted<String>"),
            ("hex", "Omitted<String>"),
        ],
    ),
    (
        "progress_fields",
        &[
            ("size_bytes", "Option<u64>"),
            ("verified_bytes", "u64"),
            ("received_bytes", "u64"),
            ("rate_bytes_per_s", "u64"),
        ],
    ),
    ("cause_fields", &[("cause", "String"), ("reason", "String")]),
    (
        "reachability_fields",
        &[("reachable", "Option<bool>"), ("reason", "String")],
    ),
];

/// A field as serde writes it.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) docs: String,
    /// The type in Rust.
    pub(super) ty: String,
    pub(super) is_required: bool,
}

/// One record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) docs: String,
    pub(super) fields: Vec<Field>,
}

/// The attributes of serde before a field or variant.
#[derive(Debug, Default)]
struct Attributes(String);

impl Attributes {
    fn has(&self, word: &str) -> bool {
        self.0
            .split([',', '(', ')', '[', ']', ' '])
            .any(|one| one == word)
    }

    fn value(&self, key: &str) -> Option<&str> {
        let (_, rest) = self.0.split_once(&format!("{key} = \""))?;
        rest.split('"').next()
    }
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (nth, letter) in name.char_indices() {
        if letter.is_uppercase() && nth > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The lines of a type in a source file, as rustfmt formats it, with the attributes before it and the
/// indentation of its members.
fn body<'a>(name: &str, source: &'a str) -> (Attributes, Vec<&'a str>, usize) {
    let name = name.rsplit("::").next().unwrap();
    let head = |line: &&str| {
        let words = line.trim();
        ["enum", "struct"].iter().any(|kind| {
            let rest = words.split_once(&format!("{kind} {name}"));
            rest.is_some_and(|(before, after)| {
                !before.starts_with("//") && after.trim_start_matches("<'a>").trim_start() == "{"
            })
        })
    };
    let lines: Vec<_> = source.lines().collect();
    let start = lines
        .iter()
        .position(head)
        .unwrap_or_else(|| panic!("no {name}"));
    let indent = lines[start].len() - lines[start].trim_start().len();
    let before = lines[..start].iter().rev();
    let attributes = before.take_while(|line| {
        let text = line.trim();
        text.starts_with('#')
            || text.starts_with("//")
            || text.starts_with(')')
            || text.starts_with("reason")
    });
    let attributes: Vec<_> = attributes
        .filter(|line| line.trim().starts_with("#[serde"))
        .copied()
        .collect();
    let end = format!("{}}}", " ".repeat(indent));
    let inside = lines[start + 1..].iter().take_while(|line| **line != end);
    (
        Attributes(attributes.concat()),
        inside.copied().collect(),
        indent + 4,
    )
}

/// What is said of a member before it.
#[derive(Default)]
struct Before {
    docs: Vec<String>,
    attributes: Attributes,
}

impl Before {
    /// Takes a line that is documentation or an attribute.
    fn takes(&mut self, text: &str) -> bool {
        if let Some(doc) = text.strip_prefix("///") {
            self.docs.push(doc.trim().to_owned());
            return true;
        }
        if text.starts_with('#') {
            if text.starts_with("#[serde") {
                self.attributes.0.push_str(text);
            }
            return true;
        }
        text.starts_with("//") || text.is_empty()
    }
}

/// Returns the fields that one line of a struct describes: none if it is skipped, several if it is flattened.
fn fields_of(text: &str, before: Before) -> Vec<Field> {
    let text = ["pub(crate) ", "pub(super) ", "pub "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text);
    let Some((name, ty)) = text.split_once(": ") else {
        return Vec::new();
    };
    let Before { docs, attributes } = before;
    if attributes.has("skip") {
        return Vec::new();
    }
    let ty = ty.trim_end_matches(',').trim();
    let with = attributes.value("serialize_with");
    if attributes.has("flatten") {
        let by = with.filter(|with| *with != "json::shared");
        return group(by.unwrap_or(ty));
    }
    let ty = match with {
        None => ty.to_owned(),
        Some("json::texts") => "Vec<String>".to_owned(),
        Some("json::maybe_error") => "Option<String>".to_owned(),
        Some(_) => "String".to_owned(),
    };
    vec![Field {
        name: attributes.value("rename").unwrap_or(name).to_owned(),
        docs: docs.join(" "),
        ty,
        is_required: attributes.value("skip_serializing_if").is_none(),
    }]
}

/// The fields of a struct, or of what is written by hand.
pub(super) fn group(ty: &str) -> Vec<Field> {
    let ty = ty.trim_start_matches("Arc<").trim_end_matches('>');
    let ty = ty.trim_start_matches('&').trim_start_matches("'a ");
    if let Some((_, fields)) = BY_HAND.iter().find(|(name, _)| *name == ty) {
        let field = |(name, ty): &(&str, &str)| Field {
            name: (*name).to_owned(),
            docs: String::new(),
            ty: ty.replace("Omitted<String>", "String"),
            is_required: !ty.starts_with("Omitted"),
        };
        return fields.iter().map(field).collect();
    }
    let source = STRUCTS.iter().find(|(name, _)| *name == ty);
    let (name, source) = source.unwrap_or_else(|| panic!("the fields of {ty} are not known"));
    struct_fields(&body(name, source).1)
}

fn struct_fields(lines: &[&str]) -> Vec<Field> {
    let (mut fields, mut before) = (Vec::new(), Before::default());
    for line in lines {
        let text = line.trim();
        if !before.takes(text) {
            fields.extend(fields_of(text, std::mem::take(&mut before)));
        }
    }
    fields
}

/// The records of a type.
pub(super) fn records(name: &str, source: &str) -> Vec<Record> {
    let (attributes, lines, indent) = body(name, source);
    if !source.contains(&format!("enum {name} {{")) {
        let name = attributes.value("rename").unwrap();
        return vec![Record {
            name: name.to_owned(),
            docs: String::new(),
            fields: struct_fields(&lines),
        }];
    }
    let (mut records, mut before): (Vec<Record>, _) = (Vec::new(), Before::default());
    for line in lines {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim();
        if before.takes(text) || text.starts_with('}') {
            continue;
        }
        if depth > indent {
            let fields = fields_of(text, std::mem::take(&mut before));
            records.last_mut().unwrap().fields.extend(fields);
            continue;
        }
        let Before { docs, attributes } = std::mem::take(&mut before);
        let end = text.find(|letter: char| !letter.is_alphanumeric());
        let (variant, rest) = text.split_at(end.unwrap_or(text.len()));
        let fields = match rest.strip_prefix('(') {
            Some(inner) => group(inner.trim_end_matches("),")),
            None => rest
                .trim_start_matches(" { ")
                .trim_end_matches(" },")
                .split(", ")
                .flat_map(|field| fields_of(field, Before::default()))
                .collect(),
        };
        let renamed = attributes.value("rename").map(str::to_owned);
        records.push(Record {
            name: renamed.unwrap_or_else(|| snake_case(variant)),
            docs: docs.join(" "),
            fields,
        });
    }
    records
}
