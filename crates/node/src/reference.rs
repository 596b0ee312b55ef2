//! The pages in `docs/reference`, generated from the code and compared with the files.
//!
//! `CALNET_WRITE_REFERENCE=1 cargo test -p calimero-network-node reference` rewrites them.

mod records;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::PathBuf,
};

use calimero_network::{Keypair, MetricsFormat, NetworkClient, NetworkConfig, NetworkManager};
use clap::{Arg, Command, CommandFactory as _};

use crate::{cli::Cli, process::ProcessMetrics};

/// Compares a page with its file, or writes the file if that is asked for.
fn check(name: &str, page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let path = path.join(name);
    if env::var_os("CALNET_WRITE_REFERENCE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/{name} is out of date; see crates/node/src/reference.rs"
    );
}

/// Breaks a text into lines of at most 96 characters, each with an indent.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + word.chars().count() >= 96 {
            lines.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push_str(&format!("{indent}{line}\n"));
    lines
}

fn help_of(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

fn write_argument(page: &mut String, argument: &Arg) {
    let values: String = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| names.iter().map(|name| format!(" {name}")).collect())
        .unwrap_or_default();
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}{values}"),
        (None, Some(long)) => format!("--{long}{values}"),
        _ => values.trim().to_owned(),
    };
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    writeln!(page, "- `{name}`").unwrap();
    page.push('\n');
    page.push_str(&wrapped(&help_of(argument), "  "));
    if !defaults.is_empty() && argument.get_action().takes_values() {
        page.push_str(&format!("  Default: `{}`.\n", defaults.join(" ")));
    }
    page.push('\n');
}

fn write_command(page: &mut String, path: &str, command: &Command) {
    writeln!(page, "## `{path}`\n").unwrap();
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    page.push_str(&wrapped(&about, ""));
    page.push('\n');
    let arguments = command.get_arguments();
    for argument in arguments.filter(|one| !one.is_global_set()) {
        write_argument(page, argument);
    }
    for sub in command.get_subcommands() {
        write_command(page, &format!("{path} {}", sub.get_name()), sub);
    }
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let command = Cli::command();
    let mut page = "# Commands\n\n\
        This page is generated from `crates/node/src/cli.rs`.\n\n\
        ## Arguments of every command\n\n"
        .to_owned();
    for argument in command.get_arguments().filter(|one| one.is_global_set()) {
        write_argument(&mut page, argument);
    }
    page.push_str("## Exit status\n\n");
    let status = command.get_after_help().unwrap().to_string();
    page.push_str(&wrapped(&status, ""));
    page.push('\n');
    for sub in command.get_subcommands() {
        write_command(&mut page, &format!("calnet {}", sub.get_name()), sub);
    }
    check("cli.md", &format!("{}\n", page.trim_end()));
}

/// The names of the variants of an enum without fields, as serde writes them.
fn enum_names(name: &str, source: &str) -> Vec<String> {
    let records = records::records(name, source).into_iter();
    records.map(|record| record.name).collect()
}

#[test]
fn the_page_of_records_is_up_to_date() {
    let mut page = "# Records\n\n\
        With `--json` each line of standard output is one JSON object. It has `event`, the name of\n\
        the record, and `time`, the time at which it was printed (RFC 3339, UTC). A failure is an\n\
        object with `event` `error`, `code` and `message` on standard error. Commands whose output\n\
        is a text or a file print it as it is: `completions`, `man` without `-o`, and `-o -`. Programs\n\
        read the same from [`records.schema.json`](records.schema.json), a JSON schema of one line.\n\
        This page is generated from the code.\n"
        .to_owned();
    for part in &records::PARTS {
        write!(page, "\n## {}\n", part.title).unwrap();
        let types = part.types.iter();
        for record in types.flat_map(|(name, source)| records::records(name, source)) {
            write!(page, "\n### `{}`\n\n", record.name).unwrap();
            if !record.docs.is_empty() {
                page.push_str(&wrapped(&record.docs, ""));
                page.push('\n');
            }
            let fields = record.fields.into_iter().map(|field| {
                let docs = field.docs.trim_end_matches('.');
                match docs.is_empty() {
                    true => format!("`{}`", field.name),
                    false => format!("`{}` ({docs})", field.name),
                }
            });
            let fields: Vec<_> = fields.collect();
            if !fields.is_empty() {
                page.push_str(&wrapped(&format!("Fields: {}.", fields.join(", ")), ""));
            }
        }
    }
    check("events.md", &page.replace("\n\n\n", "\n\n"));
}

#[test]
fn the_schema_of_records_is_up_to_date() {
    let text = serde_json::to_string_pretty(&schema::schema()).unwrap();
    check("records.schema.json", &format!("{text}\n"));
}

/// A node with all of its metrics.
async fn node_with_metrics() -> NetworkClient {
    let mut config = NetworkConfig {
        listen: Vec::new(),
        ..NetworkConfig::default()
    };
    config.server.rendezvous.enabled = true;
    config.server.relay.enabled = true;
    let key = Keypair::generate_ed25519();
    let manager = NetworkManager::builder(key, config).collector(ProcessMetrics);
    let (client, _events) = manager.in_memory().start().await.unwrap();
    client
}

/// The linter of Prometheus: names, units, help.
#[tokio::test]
async fn promtool_finds_no_fault_in_the_metrics() {
    let client = node_with_metrics().await;
    let text = client.metrics_in(MetricsFormat::Prometheus).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "metrics", "--extended"]);
    let pipe = std::process::Stdio::piped;
    promtool.stdin(pipe()).stdout(pipe()).stderr(pipe());
    let Ok(mut child) = promtool.spawn() else {
        eprintln!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    let mut input = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && faults.is_empty(), "{faults}");
}

#[tokio::test]
async fn the_page_of_metrics_is_up_to_date() {
    let client = node_with_metrics().await;
    let text = client.metrics().await.unwrap();
    let mut page = "# Metrics\n\n\
        `calnet run` and `calnet boot` serve these families at `/metrics` with `--metrics ADDR`, and\n\
         at `/v1/metrics` of the [API](../api.md), as OpenMetrics or as text of Prometheus by `Accept`.\n\
         Counters end in `_total` in their samples. Each series exists from the start of a node.\n\
         Labels have the listed values; those of the in-memory transport occur in tests alone. This\n\
         page is generated from a running node.\n"
        .to_owned();
    let mut families: Vec<(String, String)> = Vec::new();
    let mut labels: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut kinds = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            families.push((name.to_owned(), help.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some((_, rest)) = line.split_once('{') {
            // The samples of a family follow its head.
            let (family, _) = families.last().unwrap();
            let (text, _) = rest.rsplit_once("\"}").unwrap();
            for label in text.split("\",").filter(|label| !label.starts_with("le=")) {
                let (name, value) = label.split_once("=\"").unwrap();
                let values = labels.entry((family.clone(), name.to_owned())).or_default();
                values.insert(value.to_owned());
            }
        }
    }
    // It changes with every release.
    labels.retain(|(_, name), _| name != "version");
    families.sort_unstable();
    families.dedup();
    assert!(!families.is_empty());
    for (name, help) in families {
        let kind = kinds.get(&name).map_or("unknown", String::as_str);
        write!(page, "\n## `{name}`\n\n").unwrap();
        page.push_str(&wrapped(&format!("A {kind}. {help}"), ""));
        for ((_, label), values) in labels.iter().filter(|((of, _), _)| *of == name) {
            let values = values.iter().map(|value| match value.as_str() {
                "" => "empty".to_owned(),
                value => format!("`{value}`"),
            });
            let values: Vec<_> = values.collect();
            page.push('\n');
            page.push_str(&wrapped(&format!("- `{label}`: {}", values.join(", ")), "  ")[2..]);
        }
    }
    check("metrics.md", &page);
    client.shutdown().await.unwrap();
}

#[test]
fn the_description_of_the_api_is_up_to_date() {
    let text = crate::api::description().to_pretty_json().unwrap();
    check("openapi.json", &format!("{text}\n"));
}

#[test]
fn the_page_of_the_api_is_up_to_date() {
    let description = serde_json::to_value(crate::api::description()).unwrap();
    let mut page = "# Requests of the API\n\n\
        [The API](../api.md) is for people, this page lists its requests. Programs read the same from\n\
        [`openapi.json`](openapi.json), which a node serves at `/v1/openapi.json`. This page is\n\
        generated from the code.\n\n\
        Besides what is listed with it, each request can have these answers:\n\n"
        .to_owned();
    for (status, about) in crate::api::COMMON_FAILURES {
        writeln!(page, "- {status}: {about}").unwrap();
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            write!(page, "\n## `{} {path}`\n\n", method.to_uppercase()).unwrap();
            let about = format!(
                "{} {}",
                text(&operation["summary"]),
                text(&operation["description"])
            );
            page.push_str(&wrapped(&about, ""));
            page.push('\n');
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let is_required = parameter["required"] == true;
                let suffix = if is_required { "" } else { " (optional)" };
                let about = text(&parameter["description"]);
                let item = format!("- `{}`{suffix}: {about}", text(&parameter["name"]));
                page.push_str(wrapped(&item, "  ").trim_start());
            }
            if operation["requestBody"].is_object() {
                let about = text(&operation["requestBody"]["description"]);
                page.push_str(wrapped(&format!("- Body: {about}"), "  ").trim_start());
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let about = text(&response["description"]);
                let is_common = (crate::api::COMMON_FAILURES.iter())
                    .any(|(of, text)| of == status && *text == about);
                if is_common {
                    continue;
                }
                page.push_str(wrapped(&format!("- {status}: {about}"), "  ").trim_start());
            }
        }
    }
    check("api.md", &page);
}
