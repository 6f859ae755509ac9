//! The words of `pi models`.

use clap::Subcommand;

/// What `pi models` does.
#[derive(Debug, Clone, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum ModelsVerb {
    /// Use the models of Ollama
    Ollama {
        #[command(subcommand)]
        what: OllamaVerb,
    },
    /// Use the models of another server, such as LM Studio, llama.cpp or vLLM
    ///
    /// The server must answer `/v1/models`. Do it again to take over models that came or went.
    AddServer {
        /// Where it listens, such as `http://localhost:1234`
        #[arg(value_name = "URL")]
        url: String,
        /// Call it NAME in the agent's list of models
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Use a server no longer
    RemoveServer {
        /// Its name, from `pi models status`
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Show the servers in use, and whether they answer
    Status,
}

/// What `pi models ollama` does.
#[derive(Debug, Clone, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum OllamaVerb {
    /// Use Ollama's models: write them into the agent's `models.json`
    Enable {
        /// Where Ollama listens
        ///
        /// Default: `OLLAMA_HOST`, or else `127.0.0.1:11434`.
        #[arg(long, value_name = "HOST[:PORT]")]
        host: Option<String>,
    },
    /// Use Ollama no longer: `models.json` is as it was before
    Disable,
    /// List the models that Ollama has, and which of them the agent knows
    List,
    /// Take over models that came to Ollama or went
    Sync,
    /// Add a model that Ollama has
    Add {
        /// Its name, as in `ollama list`
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Remove a model from the agent's list; Ollama keeps it
    Remove {
        /// Its name, as in `ollama list`
        #[arg(value_name = "MODEL")]
        model: String,
    },
}
