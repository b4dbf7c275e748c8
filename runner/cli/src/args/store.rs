//! Options of `hotcell store`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hotcell_schema::digest::Digest;
use hotcell_schema::manifest::{Size, Time};

/// `hotcell store`.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// What to do with it
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Remove what no record names, and records that were not used lately or do not fit
    #[command(
        after_help = "Runs' folders are never touched: their results stay. What was removed is run again when it is \
        wanted again.\n\nExamples:\n  \
        hotcell store gc                        only what nothing names any more\n  \
        hotcell store gc --keep 30d             and what was not used for 30 days\n  \
        hotcell store gc --max-size 20GiB       and what does not fit, the least recently used first\n  \
        hotcell store gc --keep 30d --dry-run   only say what would go"
    )]
    Gc(GcArgs),
    /// Read every file of the store and say what is damaged (exit code 1)
    #[command(
        after_help = "A run never uses what is damaged: it finds that out by itself and runs again what is missing. \
        So --repair is needed only where a disk would not give a file any more.\n\nExamples:\n  \
        hotcell store verify\n  hotcell store verify --repair"
    )]
    Verify(VerifyArgs),
    /// Write records and the objects they name into one file
    #[command(after_help = "The same records give the same bytes.\n\nExamples:\n  \
        hotcell store export everything.hotcell\n  \
        hotcell store export --run 20260102T030405-bots bots.hotcell\n  \
        hotcell store export --run .hotcell/runs/20260102T030405-bots - | ssh host hotcell store import -")]
    Export(ExportArgs),
    /// Read such a file into the store
    #[command(
        after_help = "Every object and key in the file is computed anew, and nothing that is whole is replaced. What \
        a record says a program did cannot be checked without running it: import only from those you would believe.\n\n\
        Example:\n  hotcell store import bots.hotcell"
    )]
    Import(ImportArgs),
}

/// `hotcell store gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Keep what was used within this time (30d, 12h); the time of use is noted once a day
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub keep: Option<Duration>,
    /// Keep what fits into this size (20GiB)
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<Size>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until no run works with the store
    #[arg(long)]
    pub wait: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell store verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Remove what is wrong, so that it is made again
    #[arg(long)]
    pub repair: bool,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hotcell store export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What a run used and made: its folder or id
    #[arg(long, value_name = "RUN", conflicts_with = "key")]
    pub run: Option<String>,
    /// A cache key, as `hotcell explain` shows it (can be given several times)
    #[arg(long, value_name = "KEY")]
    pub key: Vec<Digest>,
    /// The file to write; `-` is standard output
    pub file: PathBuf,
    /// Print what was written as JSON on standard error
    #[arg(long)]
    pub json: bool,
}

/// `hotcell store import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file to read; `-` is standard input
    pub file: PathBuf,
    /// Read no more than this, unpacked
    #[arg(long, value_name = "SIZE", default_value = "100GiB")]
    pub max_size: Size,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    if let Some(days) = text.strip_suffix('d') {
        let days: u32 = days
            .parse()
            .map_err(|_| format!("`{text}` is not a number of days like 30d"))?;
        return Ok(Duration::from_secs(u64::from(days) * 24 * 3600));
    }
    let time: Time = text
        .parse()
        .map_err(|_| format!("`{text}` is not a time like 30d, 12h or 90m"))?;
    Ok(Duration::from_nanos(time.0))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_written_with_their_unit() {
        assert_eq!(time("30d").map(|time| time.as_secs()), Ok(30 * 24 * 3600));
        assert_eq!(time("12h").map(|time| time.as_secs()), Ok(12 * 3600));
        for wrong in ["30", "d", "-1d", "1w", ""] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
