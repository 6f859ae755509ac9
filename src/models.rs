//! Model servers of the user's own, such as Ollama: what they offer, and their entries in the agent's `models.json`.

pub(crate) mod address;
mod ask;
mod document;
mod file;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::address::Address;
pub(crate) use self::{
    ask::ask,
    file::{Models, Ours},
};

/// Which list of models a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Ollama's own.
    Ollama,
    /// The list at `/v1/models`: LM Studio, llama.cpp, vLLM and others.
    OpenAi,
}

/// A model server that `pi models` has put into `models.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: Address,
}

/// A model as its server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) sees_images: bool,
    pub(crate) thinks: bool,
    /// How many tokens it can have in mind, if the server says so.
    pub(crate) context: Option<u64>,
    /// Who made the server, as it says itself.
    pub(crate) by: Option<String>,
}

/// The provider's name for Ollama.
pub(crate) const OLLAMA: &str = "ollama";

impl Server {
    /// The provider's entry in `models.json`. A server without keys needs one all the same: without it, the agent takes
    /// the models for unavailable.
    pub(crate) fn entry(&self, name: &str, models: &[Model]) -> Value {
        json!({
            "baseUrl": self.address.to_string(),
            "api": "openai-completions",
            "apiKey": name,
            "models": models.iter().map(Model::entry).collect::<Vec<_>>(),
        })
    }
}

impl Model {
    pub(crate) fn named(id: &str) -> Self {
        Self { id: id.to_owned(), sees_images: false, thinks: false, context: None, by: None }
    }

    fn entry(&self) -> Value {
        let mut entry = Map::from_iter([("id".to_owned(), json!(self.id))]);
        if self.sees_images {
            entry.insert("input".to_owned(), json!(["text", "image"]));
        }
        if self.thinks {
            entry.insert("reasoning".to_owned(), json!(true));
        }
        if let Some(context) = self.context {
            entry.insert("contextWindow".to_owned(), json!(context));
        }
        Value::Object(entry)
    }
}
