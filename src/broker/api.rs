//! The ways in which the agent speaks to a provider: which requests it makes, and where in them the key travels.

/// A protocol of the agent, under the name that `models.json` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Api {
    Azure,
    Codex,
    Completions,
    Converse,
    Gemini,
    Messages,
    Mistral,
    PiMessages,
    Responses,
    Vertex,
}

/// A header that carries a key. The broker swaps the placeholder for the key in the header where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carrier {
    /// `authorization: Bearer KEY`
    Bearer,
    /// `x-api-key: KEY`
    ApiKey,
    /// `x-goog-api-key: KEY`
    Google,
    /// `api-key: KEY`
    Azure,
    /// `cf-aig-authorization: Bearer KEY`
    Gateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// One request that the agent makes: what follows the base URL, the query included, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) method: Method,
    /// `{model}`, `{arn}` and `{version}` stand for one segment, or a part of one, of harmless characters.
    pub(crate) tail: &'static str,
    /// The request asks for a websocket, and may be nothing else.
    pub(crate) websocket: bool,
}

const fn post(tail: &'static str) -> Rule {
    Rule { method: Method::Post, tail, websocket: false }
}

impl Api {
    const NAMES: &[(&str, Self)] = &[
        ("anthropic-messages", Self::Messages),
        ("azure-openai-responses", Self::Azure),
        ("bedrock-converse-stream", Self::Converse),
        ("google-generative-ai", Self::Gemini),
        ("google-vertex", Self::Vertex),
        ("mistral-conversations", Self::Mistral),
        ("openai-codex-responses", Self::Codex),
        ("openai-completions", Self::Completions),
        ("openai-responses", Self::Responses),
        ("pi-messages", Self::PiMessages),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, api)| *api)
    }

    /// Where the agent puts the key. Some SDKs use the second where a login replaces the key.
    pub(crate) fn carriers(self) -> &'static [Carrier] {
        match self {
            Self::Messages => &[Carrier::ApiKey, Carrier::Bearer],
            Self::Azure => &[Carrier::Azure, Carrier::Bearer],
            Self::Gemini | Self::Vertex => &[Carrier::Google],
            Self::Codex
            | Self::Completions
            | Self::Converse
            | Self::Mistral
            | Self::PiMessages
            | Self::Responses => &[Carrier::Bearer],
        }
    }

    /// Every request that the agent makes in this protocol. What is not here never leaves with a key.
    pub(crate) fn rules(self) -> &'static [Rule] {
        match self {
            Self::Messages => {
                const {
                    &[
                        post("/v1/messages"),
                        post("/v1/messages?beta=true"),
                        post("/v1/messages/count_tokens"),
                        post("/v1/messages/count_tokens?beta=true"),
                    ]
                }
            }
            Self::Responses => const { &[post("/responses")] },
            Self::Completions => const { &[post("/chat/completions")] },
            Self::Mistral => const { &[post("/v1/chat/completions")] },
            Self::PiMessages => const { &[post("/messages"), post("/messages?debug=1")] },
            Self::Azure => const { &[post("/responses?api-version={version}")] },
            Self::Gemini => {
                const {
                    &[
                        post("/models/{model}:streamGenerateContent?alt=sse"),
                        post("/models/{model}:generateContent"),
                        post("/models/{model}:countTokens"),
                    ]
                }
            }
            Self::Vertex => {
                const {
                    &[
                        post("/v1/publishers/google/models/{model}:streamGenerateContent?alt=sse"),
                        post("/v1/publishers/google/models/{model}:generateContent"),
                        post("/v1/publishers/google/models/{model}:countTokens"),
                    ]
                }
            }
            Self::Converse => {
                const { &[post("/model/{arn}/converse-stream"), post("/model/{arn}/converse")] }
            }
            Self::Codex => {
                const {
                    &[
                        post("/codex/responses"),
                        Rule { method: Method::Get, tail: "/codex/responses", websocket: true },
                    ]
                }
            }
        }
    }
}

impl Carrier {
    pub(crate) const ALL: [Self; 5] = [Self::Bearer, Self::ApiKey, Self::Google, Self::Azure, Self::Gateway];

    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Bearer => "authorization",
            Self::ApiKey => "x-api-key",
            Self::Google => "x-goog-api-key",
            Self::Azure => "api-key",
            Self::Gateway => "cf-aig-authorization",
        }
    }

    /// What stands before the key in the header's value.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Bearer | Self::Gateway => "Bearer ",
            Self::ApiKey | Self::Google | Self::Azure => "",
        }
    }
}

impl Method {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}
