//! `calnet blob`: blobs of a data folder, and of the network.

mod get;
mod lines;
mod local;

use calimero_network::blob::store::FsBlobStore;

use crate::{
    cli::{BlobArgs, BlobCommand},
    data::DataFolder,
    error::CommandError,
    output::Output,
};

pub(crate) async fn execute(args: BlobArgs) -> Result<(), CommandError> {
    let output = Output::new(args.json);
    let data = args.data.as_deref().map(DataFolder::open).transpose()?;
    let open = || -> Result<FsBlobStore, CommandError> {
        let data = data.as_ref().ok_or(CommandError::NoDataFolder)?;
        data.blobs(&calimero_network::config::BlobStoreConfig::default())
    };
    match args.command {
        BlobCommand::Get(get) => {
            let store = data.is_some().then(open).transpose()?;
            get::execute(get, store, &output).await
        }
        // These work on the disk until they are done.
        BlobCommand::Add { files } => {
            let store = open()?;
            blocking(move || local::add(&store, &files, &output)).await
        }
        BlobCommand::Ls => local::list(&open()?, &output),
        BlobCommand::Rm { ids } => {
            let store = open()?;
            blocking(move || local::remove(&store, &ids, &output)).await
        }
        BlobCommand::Verify { ids } => {
            let store = open()?;
            blocking(move || local::verify(&store, ids, &output)).await
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), CommandError> + Send + 'static,
) -> Result<(), CommandError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(CommandError::Task)?
}
