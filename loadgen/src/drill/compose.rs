//! The services of a Docker Compose file, through `docker`.
//!
//! Services there carry the names that `tradenet dev` gives them (`order-1`, `catalog-1`, `frontend-1`, `nats`). The
//! program is asked and not its socket, so that contexts, remote engines and rights are the user's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::fault::Action;
use super::journals::{self, Look};

/// Longest that one command may take; `stop` itself waits 10 s before it kills.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A Compose file whose services run.
pub(super) struct Compose {
    program: String,
    file: PathBuf,
    names: Vec<String>,
    /// Networks that a container was cut off: service, container, networks.
    cut: Vec<(String, String, Vec<String>)>,
}

impl Compose {
    pub(super) async fn open(file: &Path, program: &str) -> anyhow::Result<Self> {
        let mut compose =
            Self { program: program.to_owned(), file: file.to_owned(), names: Vec::new(), cut: Vec::new() };
        let names = compose.compose(&["ps", "--services"]).await?;
        compose.names = names.lines().map(str::to_owned).collect();
        anyhow::ensure!(
            !compose.names.is_empty(),
            "no service of {} runs: `docker compose up -d` first",
            file.display()
        );
        Ok(compose)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Harms all of `names`, with one command where there is one for it, so that it is at the same time. A result for
    /// each.
    pub(super) async fn harm(&mut self, action: Action, names: &[String]) -> Vec<anyhow::Result<()>> {
        let verb = match action {
            Action::Kill => "kill",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Pause => "pause",
            Action::Cut => {
                let mut results = Vec::new();
                for name in names {
                    results.push(self.cut_off(name).await);
                }
                return results;
            }
        };
        let arguments: Vec<&str> = [verb].into_iter().chain(names.iter().map(String::as_str)).collect();
        let done = self.compose(&arguments).await.map(drop);
        let failed = done.err().map(|error| format!("{error:#}"));
        names.iter().map(|_| failed.clone().map_or(Ok(()), |error| Err(anyhow::Error::msg(error)))).collect()
    }

    pub(super) async fn heal(&mut self, action: Action, name: &str) -> anyhow::Result<()> {
        let verb = match action {
            Action::Kill | Action::Stop => "start",
            Action::Pause => "unpause",
            Action::Restart => return Ok(()),
            Action::Cut => return self.join_again(name).await,
        };
        self.compose(&[verb, name]).await.map(drop)
    }

    /// Has each replica look at its own order file: its volume is its own.
    pub(super) async fn look_at_journals(&self) -> Look {
        let mut reports = Vec::new();
        for name in self.names.iter().filter(|name| name.starts_with("order-")) {
            let verify = ["exec", "-T", name, "sh", "-c", "exec tradenet verify \"$TRADENET_DATA_DIR\""];
            reports.push(self.compose(&verify).await.unwrap_or_else(|error| format!("{name} {error:#}")));
        }
        journals::look_at_lines(&reports)
    }

    async fn cut_off(&mut self, name: &str) -> anyhow::Result<()> {
        let container = self.compose(&["ps", "--quiet", name]).await?.trim().to_owned();
        let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}";
        let networks = self.docker(&["inspect", "--format", format, &container]).await?;
        let networks: Vec<String> = networks.split_whitespace().map(str::to_owned).collect();
        for network in &networks {
            self.docker(&["network", "disconnect", network, &container]).await?;
        }
        self.cut.push((name.to_owned(), container, networks));
        Ok(())
    }

    async fn join_again(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(index) = self.cut.iter().position(|(cut, _, _)| cut == name) else {
            return Ok(());
        };
        let (_, container, networks) = self.cut.swap_remove(index);
        for network in networks {
            // The alias is the name that other services know it by, which `connect` alone would not give back.
            self.docker(&["network", "connect", "--alias", name, &network, &container]).await?;
        }
        Ok(())
    }

    async fn compose(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let file = self.file.to_str().context("the Compose file's path is not plain text (UTF-8)")?;
        let mut all = vec!["compose", "--file", file];
        all.extend(arguments);
        self.docker(&all).await
    }

    async fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = || format!("{} {}", self.program, arguments.join(" "));
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
            .await
            .with_context(|| format!("`{}` does not end", said()))?
            .with_context(|| format!("`{}` cannot be run; is Docker installed?", said()))?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`{}`: {}", said(), error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
