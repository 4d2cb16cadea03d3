//! The servers under test, each a program that ends when its input ends.
//!
//! - `EVROC_API_KUBECONFIG=FILE`: one that runs already and serves the kinds of `kinds/`.
//! - `EVROC_API_ORIGINAL=FOLDER`: the original, from the folder that `tests/reference/build` prints.
//! - neither: ours, from the program `serve` beside this one (`cargo build -p evroc-apiserver --examples`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::client::Client;

/// A server, and how to end it.
pub struct Server {
    /// A kubeconfig with all rights.
    pub kubeconfig: PathBuf,
    /// Whether it is Kubernetes' own server for custom resources: no authentication, no core kinds, no garbage collection.
    pub is_original: bool,
    program: Option<Program>,
}

/// A server that was started here.
struct Program {
    child: Child,
    // Dropped with the process: the program sees the end of its input and ends.
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// The definitions of the kinds that the tests use.
pub fn kinds_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kinds")
}

impl Server {
    /// The server that the environment names.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn from_environment() -> Result<Self> {
        if let Some(kubeconfig) = std::env::var_os("EVROC_API_KUBECONFIG") {
            let kubeconfig = PathBuf::from(kubeconfig);
            return Ok(Server { kubeconfig, is_original: false, program: None });
        }
        match std::env::var_os("EVROC_API_ORIGINAL") {
            Some(folder) => Self::original(Path::new(&folder), false).await,
            None => Self::ours(&[], false).await,
        }
    }

    /// Ours, with the kinds of [`kinds_dir`]; `arguments` go to `serve`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn ours(arguments: &[&str], without_sync: bool) -> Result<Self> {
        let mut command = Command::new(serve_program()?);
        keep_in(&mut command, without_sync);
        command.arg("--crd-dir").arg(kinds_dir()).args(arguments);
        Self::start(command, false).await
    }

    /// The original, with the kinds of [`kinds_dir`] installed.
    ///
    /// # Errors
    /// If it cannot be started or refuses a kind.
    pub async fn original(folder: &Path, without_sync: bool) -> Result<Self> {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference/start"));
        command.arg(folder);
        if without_sync {
            command.env("EVROC_REFERENCE_NO_SYNC", "1");
        }
        keep_in(&mut command, without_sync);
        let server = Self::start(command, true).await?;
        install_kinds(&server.client().await?, &definitions(&kinds_dir())?).await?;
        Ok(server)
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// If the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        Client::from_kubeconfig(&self.kubeconfig).await
    }

    async fn start(mut command: Command, is_original: bool) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(false);
        let name = command.as_std().get_program().to_owned();
        let mut child = command.spawn().with_context(|| format!("start {}", name.display()))?;
        let input = child.stdin.take().context("the program has no input")?;
        let output = child.stdout.take().context("the program has no output")?;
        let mut output = BufReader::new(output).lines();
        while let Some(line) = output.next_line().await? {
            if let Some(path) = line.strip_prefix("KUBECONFIG=") {
                return Ok(Server {
                    kubeconfig: path.into(),
                    is_original,
                    program: Some(Program { child, input, output }),
                });
            }
        }
        bail!("{} ended before it was ready; its output is above", name.display())
    }

    /// Whether it was started here, so that [`Server::forget`] is possible.
    pub fn is_own(&self) -> bool {
        self.program.is_some()
    }

    /// Lets the server compact its store and start again: only the newest state is known after it.
    ///
    /// # Errors
    /// If it was not started here, or does not start again.
    pub async fn forget(&mut self) -> Result<()> {
        let program = self.program.as_mut().context("a server that runs already cannot be made to compact")?;
        program.input.write_all(b"forget\n").await.context("ask the server to forget")?;
        while let Some(line) = program.output.next_line().await? {
            if line == "FORGOTTEN" {
                return Ok(());
            }
        }
        bail!("the server ended instead of compacting; its output is above")
    }

    /// Ends the program and waits until it has.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn stop(self) -> Result<()> {
        if let Some(Program { mut child, input, .. }) = self.program {
            drop(input);
            child.wait().await.context("wait for the server's end")?;
        }
        Ok(())
    }
}

/// Where only behaviour is compared, the store need not reach a disk: it goes to memory, if the machine has a folder for that.
fn keep_in(command: &mut Command, without_sync: bool) {
    let memory = Path::new("/dev/shm");
    if without_sync && memory.is_dir() {
        command.env("TMPDIR", memory);
    }
}

fn serve_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("examples/serve")).find(|path| path.exists());
    found.with_context(|| {
        format!("no program `serve` near {}: build it with `cargo build -p evroc-apiserver --examples`", own.display())
    })
}

/// All CustomResourceDefinitions in the files of a folder.
///
/// # Errors
/// If a file cannot be read.
pub fn definitions(dir: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("read {}", dir.display()))?;
    files.sort();
    let mut definitions = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("read {}", file.display()))?;
        definitions.extend(documents);
    }
    Ok(definitions)
}

/// Creates the definitions and waits until their kinds are served.
///
/// # Errors
/// If one is refused, or not served within a minute.
pub async fn install_kinds(client: &Client, definitions: &[Value]) -> Result<()> {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for definition in definitions {
        let made = client.send(Method::POST, DEFINITIONS, "application/json", definition.to_string()).await?;
        let name = &definition["metadata"]["name"];
        anyhow::ensure!(made.code == 201, "the original refuses the kind {name}: {}", made.body["message"]);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for definition in definitions {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&spec["versions"][0]["name"]);
        let path = format!("/apis/{}/{version}/{}", text(&spec["group"]), text(&spec["names"]["plural"]));
        loop {
            let answer = client.send(Method::GET, &path, "application/json", "").await?;
            if answer.code == 200 {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "{path} is not served within a minute: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Makes a namespace where the server has namespaces.
///
/// # Errors
/// If it is refused.
pub async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = client.send(Method::POST, "/api/v1/namespaces", "application/json", body.to_string()).await?;
    anyhow::ensure!(made.code == 201, "namespace {name} is refused: {}", made.body);
    Ok(())
}
