//! `calnet man`: manual pages, made of the description of the arguments.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory as _};
use serde::Serialize;

use crate::{
    cli::Cli,
    error::CommandError,
    output::{Output, path_text},
};

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write a page of each command to, `calnet.1`, `calnet-run.1` and so on. It is created
    /// if it does not exist. Pages in it are replaced. Without it, the page of `calnet` is printed.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Pages were written.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "manual_written")]
struct ManualWritten {
    folder: String,
    pages: usize,
}

impl std::fmt::Display for ManualWritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages in {}", self.pages, self.folder)
    }
}

pub(crate) fn execute(args: ManArgs, output: &Output) -> Result<(), CommandError> {
    let command = Cli::command();
    let Some(folder) = args.output else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(|source| CommandError::Io {
            what: "cannot make the page",
            source,
        })?;
        return output.write_bytes(page);
    };
    let failed = |source| CommandError::File {
        doing: "write manual pages to",
        path: folder.clone(),
        source,
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    clap_mangen::generate_to(command, &folder).map_err(failed)?;
    let pages = fs::read_dir(&folder).map_err(failed)?;
    let pages = pages.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("calnet") && name.ends_with(".1")
    });
    let pages = pages.count();
    let folder = path_text(&folder);
    output.print(&ManualWritten { folder, pages });
    Ok(())
}
