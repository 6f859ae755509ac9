//! The agent's built-in providers: where each listens, what it is asked for, and which variables hold its key.
//!
//! Read out of `@earendil-works/pi-ai` 0.87.1, with what 1.5.2 has besides. The order of the variables is the agent's.

use std::collections::BTreeSet;

use super::{api::Api, placeholder::Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) id: &'static str,
    /// The first that is set holds the key.
    pub(crate) variables: &'static [&'static str],
    /// Names in braces are settings, from the entry in `auth.json` or the environment.
    pub(crate) base: &'static str,
    pub(crate) apis: &'static [Api],
    /// The agent's models have several base URLs, and an override gives it one. Here stands what then arrives after
    /// that one, and what has to become of it.
    pub(crate) moves: &'static [(&'static str, &'static str)],
    pub(crate) login: Login,
}

/// What a login of the provider's, an `oauth` entry in `auth.json`, is to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// There is none.
    None,
    /// Its access token is used in place of a key; the agent gets a placeholder of this shape in a login that never
    /// expires.
    Token(Shape),
    /// The agent would take the address from the token too, past the override, so it gets the placeholder as a key.
    AsKey,
    /// It cannot be had through a broker, because of this.
    Unserved(&'static str),
}

const fn keyed(
    id: &'static str,
    variables: &'static [&'static str],
    base: &'static str,
    api: &'static [Api],
) -> Provider {
    Provider { id, variables, base, apis: api, moves: &[], login: Login::None }
}

const COMPLETIONS: &[Api] = &[Api::Completions];
const MESSAGES: &[Api] = &[Api::Messages];
const RESPONSES: &[Api] = &[Api::Responses];

/// The agent's client for messages adds `/v1` by itself, to a base that already ends with it.
const ONE_V1: &[(&str, &str)] =
    &[("/v1/messages", "/messages"), ("/v1/messages/count_tokens", "/messages/count_tokens")];

const GATEWAY: &[(&str, &str)] = &[
    ("/v1/messages", "/anthropic/v1/messages"),
    ("/v1/messages/count_tokens", "/anthropic/v1/messages/count_tokens"),
    ("/chat/completions", "/compat/chat/completions"),
    ("/responses", "/openai/responses"),
];

/// Sorted by id.
pub(crate) const PROVIDERS: &[Provider] = &[
    keyed(
        "amazon-bedrock",
        &["AWS_BEARER_TOKEN_BEDROCK"],
        "https://bedrock-runtime.{AWS_REGION}.amazonaws.com",
        &[Api::Converse],
    ),
    keyed("ant-ling", &["ANT_LING_API_KEY"], "https://api.ant-ling.com/v1", COMPLETIONS),
    Provider {
        login: Login::Token(Shape::Claude),
        ..keyed(
            "anthropic",
            &["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_OAUTH_TOKEN", "ANTHROPIC_API_KEY"],
            "https://api.anthropic.com",
            MESSAGES,
        )
    },
    // The address is the user's own; `base` here is only what a resource's name makes of it.
    keyed("azure", &["AZURE_OPENAI_API_KEY"], AZURE, &[Api::Azure]),
    keyed("azure-openai-responses", &["AZURE_OPENAI_API_KEY"], AZURE, &[Api::Azure]),
    keyed("baseten", &["BASETEN_API_KEY"], "https://inference.baseten.co/v1", COMPLETIONS),
    keyed("cerebras", &["CEREBRAS_API_KEY"], "https://api.cerebras.ai/v1", COMPLETIONS),
    Provider {
        moves: GATEWAY,
        ..keyed(
            "cloudflare-ai-gateway",
            &["CLOUDFLARE_API_KEY"],
            "https://gateway.ai.cloudflare.com/v1/{CLOUDFLARE_ACCOUNT_ID}/{CLOUDFLARE_GATEWAY_ID}",
            &[Api::Messages, Api::Completions, Api::Responses],
        )
    },
    keyed(
        "cloudflare-workers-ai",
        &["CLOUDFLARE_API_KEY"],
        "https://api.cloudflare.com/client/v4/accounts/{CLOUDFLARE_ACCOUNT_ID}/ai/v1",
        COMPLETIONS,
    ),
    keyed("deepseek", &["DEEPSEEK_API_KEY"], "https://api.deepseek.com", COMPLETIONS),
    Provider {
        moves: ONE_V1,
        ..keyed(
            "fireworks",
            &["FIREWORKS_API_KEY"],
            "https://api.fireworks.ai/inference/v1",
            &[Api::Messages, Api::Completions],
        )
    },
    Provider {
        login: Login::AsKey,
        ..keyed(
            "github-copilot",
            &["COPILOT_GITHUB_TOKEN"],
            "https://api.individual.githubcopilot.com",
            &[Api::Messages, Api::Completions, Api::Responses],
        )
    },
    keyed("google", &["GEMINI_API_KEY"], "https://generativelanguage.googleapis.com/v1beta", &[Api::Gemini]),
    keyed("google-vertex", &["GOOGLE_CLOUD_API_KEY"], "https://aiplatform.googleapis.com", &[Api::Vertex]),
    keyed("groq", &["GROQ_API_KEY"], "https://api.groq.com/openai/v1", COMPLETIONS),
    keyed("huggingface", &["HF_TOKEN"], "https://router.huggingface.co/v1", COMPLETIONS),
    Provider {
        login: Login::Token(Shape::Plain),
        ..keyed("kimi-coding", &["KIMI_API_KEY"], "https://api.kimi.com/coding", MESSAGES)
    },
    Provider {
        login: Login::Token(Shape::Plain),
        ..keyed("meta", &["META_API_KEY"], "https://api.meta.ai/v1", RESPONSES)
    },
    keyed("minimax", &["MINIMAX_API_KEY"], "https://api.minimax.io/anthropic", MESSAGES),
    keyed("minimax-cn", &["MINIMAX_CN_API_KEY"], "https://api.minimaxi.com/anthropic", MESSAGES),
    keyed("mistral", &["MISTRAL_API_KEY"], "https://api.mistral.ai", &[Api::Mistral]),
    keyed("moonshotai", &["MOONSHOT_API_KEY"], "https://api.moonshot.ai/v1", COMPLETIONS),
    keyed("moonshotai-cn", &["MOONSHOT_API_KEY"], "https://api.moonshot.cn/v1", COMPLETIONS),
    keyed("nvidia", &["NVIDIA_API_KEY"], "https://integrate.api.nvidia.com/v1", COMPLETIONS),
    Provider {
        login: Login::Unserved("the agent uses a ChatGPT login for `openai` only at OpenAI's own address"),
        ..keyed("openai", &["OPENAI_API_KEY"], "https://api.openai.com/v1", RESPONSES)
    },
    Provider {
        login: Login::Token(Shape::ChatGpt),
        ..keyed("openai-codex", &[], "https://chatgpt.com/backend-api", &[Api::Codex])
    },
    Provider {
        moves: ONE_V1,
        ..keyed(
            "opencode",
            &["OPENCODE_API_KEY"],
            "https://opencode.ai/zen/v1",
            &[Api::Messages, Api::Gemini, Api::Completions, Api::Responses],
        )
    },
    Provider {
        moves: ONE_V1,
        ..keyed(
            "opencode-go",
            &["OPENCODE_API_KEY"],
            "https://opencode.ai/zen/go/v1",
            &[Api::Messages, Api::Completions, Api::Responses],
        )
    },
    Provider {
        moves: ONE_V1,
        login: Login::Token(Shape::Plain),
        ..keyed(
            "openrouter",
            &["OPENROUTER_API_KEY"],
            "https://openrouter.ai/api/v1",
            &[Api::Messages, Api::Completions],
        )
    },
    keyed(
        "qwen-token-plan",
        &["QWEN_TOKEN_PLAN_API_KEY"],
        "https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1",
        COMPLETIONS,
    ),
    keyed(
        "qwen-token-plan-cn",
        &["QWEN_TOKEN_PLAN_CN_API_KEY"],
        "https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
        COMPLETIONS,
    ),
    keyed(
        "qwen-token-plan-individual",
        &["QWEN_TOKEN_PLAN_API_KEY"],
        "https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1",
        COMPLETIONS,
    ),
    Provider {
        login: Login::Token(Shape::Plain),
        ..keyed("radius", &["RADIUS_API_KEY"], "https://radius.pi.dev/v1", &[Api::PiMessages])
    },
    keyed("together", &["TOGETHER_API_KEY"], "https://api.together.ai/v1", COMPLETIONS),
    keyed("vercel-ai-gateway", &["AI_GATEWAY_API_KEY"], "https://ai-gateway.vercel.sh", MESSAGES),
    Provider {
        login: Login::Token(Shape::Plain),
        ..keyed("xai", &["XAI_API_KEY"], "https://api.x.ai/v1", RESPONSES)
    },
    keyed("xiaomi", &["XIAOMI_API_KEY"], "https://api.xiaomimimo.com/v1", COMPLETIONS),
    keyed(
        "xiaomi-token-plan-ams",
        &["XIAOMI_TOKEN_PLAN_AMS_API_KEY"],
        "https://token-plan-ams.xiaomimimo.com/v1",
        COMPLETIONS,
    ),
    keyed(
        "xiaomi-token-plan-cn",
        &["XIAOMI_TOKEN_PLAN_CN_API_KEY"],
        "https://token-plan-cn.xiaomimimo.com/v1",
        COMPLETIONS,
    ),
    keyed(
        "xiaomi-token-plan-sgp",
        &["XIAOMI_TOKEN_PLAN_SGP_API_KEY"],
        "https://token-plan-sgp.xiaomimimo.com/v1",
        COMPLETIONS,
    ),
    keyed("zai", &["ZAI_API_KEY"], "https://api.z.ai/api/coding/paas/v4", COMPLETIONS),
    keyed(
        "zai-coding-cn",
        &["ZAI_CODING_CN_API_KEY"],
        "https://open.bigmodel.cn/api/coding/paas/v4",
        COMPLETIONS,
    ),
];

const AZURE: &str = "https://{AZURE_OPENAI_RESOURCE_NAME}.openai.azure.com/openai/v1";

/// Credentials that no broker can hold: what shows that the user has them, whose they are, and why.
pub(crate) const UNSERVED: &[(&[&str], &str, &str)] = &[
    (
        &["AWS_PROFILE"],
        "amazon-bedrock",
        "requests with AWS keys are signed for the address that they go to; a Bedrock API key can stay outside",
    ),
    (
        &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        "amazon-bedrock",
        "requests with AWS keys are signed for the address that they go to; a Bedrock API key can stay outside",
    ),
    (
        &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "amazon-bedrock",
        "requests with AWS roles are signed for the address that they go to; a Bedrock API key can stay outside",
    ),
    (
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        "google-vertex",
        "Google's client fetches its own tokens; an API key for Vertex can stay outside",
    ),
    (
        &["ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_IDENTITY_TOKEN_FILE"],
        "anthropic",
        "the agent fetches tokens for a workload identity by itself",
    ),
    (&["TYPESAFE_API_KEY"], "typesafe", "where this provider listens is not known"),
    (&["LLAMA_API_KEY"], "llama.cpp", "the agent takes its address from `LLAMA_BASE_URL` alone"),
];

/// Parts of credentials, and files with them: the variable, and whose they are.
const PARTS: &[(&str, &str)] = &[
    ("ANTHROPIC_IDENTITY_TOKEN_FILE", "anthropic"),
    ("AWS_CONFIG_FILE", "amazon-bedrock"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "amazon-bedrock"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "amazon-bedrock"),
    ("AWS_SESSION_TOKEN", "amazon-bedrock"),
    ("AWS_SHARED_CREDENTIALS_FILE", "amazon-bedrock"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "amazon-bedrock"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "google-vertex"),
    ("HF_TOKEN_PATH", "huggingface"),
];

/// Whether a variable holds or names a credential of one of these providers.
pub(crate) fn is_of(variable: &str, ids: &BTreeSet<String>) -> bool {
    let keys = PROVIDERS.iter().flat_map(|known| known.variables.iter().map(|name| (*name, known.id)));
    let unserved = UNSERVED.iter().flat_map(|(names, id, _)| names.iter().map(|name| (*name, *id)));
    let mut all = keys.chain(unserved).chain(PARTS.iter().copied());
    all.any(|(name, id)| name == variable && ids.contains(id))
}

impl Provider {
    pub(crate) fn named(id: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.id == id)
    }

    /// The base URL with the user's settings in it, or the setting that is missing.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub(crate) fn base_url(&self, setting: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        if self.apis == [Api::Azure]
            && let Some(base) = setting("AZURE_OPENAI_BASE_URL")
        {
            return Ok(azure(&base));
        }
        let mut text = self.base.to_owned();
        while let Some((before, rest)) = text.split_once('{') {
            let (name, after) = rest.split_once('}').ok_or("its address is not known")?;
            let value = setting(name).or_else(|| match name {
                "AWS_REGION" => Some(setting("AWS_DEFAULT_REGION").unwrap_or_else(|| "us-east-1".to_owned())),
                _ => None,
            });
            let value = value.ok_or_else(|| format!("`{name}` is not set"))?;
            if !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Err(format!("`{name}` has other characters than letters, digits, `-` and `_`"));
            }
            text = format!("{before}{value}{after}");
        }
        if self.id == "amazon-bedrock" && text.contains("bedrock-runtime.cn-") {
            text.push_str(".cn");
        }
        Ok(text)
    }
}

/// What the agent makes of an address of Azure's, which it no longer recognizes behind a broker.
fn azure(base: &str) -> String {
    let base = base.trim().trim_end_matches('/');
    let host = base.strip_prefix("https://").unwrap_or_default();
    let (host, path) = host.split_at(host.find('/').unwrap_or(host.len()));
    let is_azure = [".openai.azure.com", ".cognitiveservices.azure.com", ".ai.azure.com"]
        .iter()
        .any(|suffix| host.ends_with(suffix));
    if is_azure && matches!(path, "" | "/openai" | "/openai/v1/responses") {
        return format!("https://{host}/openai/v1");
    }
    base.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent, broker::base::Base};

    #[test]
    fn the_table_is_sorted_and_each_base_can_be_written() {
        assert!(PROVIDERS.is_sorted_by_key(|provider| provider.id));
        for provider in PROVIDERS.iter().filter(|provider| provider.apis != [Api::Azure]) {
            let base = Base::parse(&provider.base_url(|name| Some(name.to_lowercase())).unwrap()).unwrap();
            assert_eq!(base.port, 443, "{}", provider.id);
        }
    }

    #[test]
    fn every_secret_that_the_launcher_knows_belongs_to_a_provider() {
        let everybody = PROVIDERS.iter().map(|known| known.id).chain(UNSERVED.iter().map(|(_, id, _)| *id));
        let everybody = everybody.map(str::to_owned).collect();
        for name in agent::SECRETS.iter().chain(agent::CREDENTIAL_PATHS) {
            assert!(is_of(name, &everybody), "{name}");
            assert!(!is_of(name, &BTreeSet::new()), "{name}");
        }
        for name in PROVIDERS.iter().flat_map(|provider| provider.variables) {
            assert!(agent::SECRETS.contains(name), "{name}");
        }
    }

    #[test]
    fn a_region_and_an_address_of_azure_are_the_users() {
        let bedrock = Provider::named("amazon-bedrock").unwrap();
        let host = |region: Option<&str>| {
            bedrock.base_url(|name| region.filter(|_| name == "AWS_REGION").map(str::to_owned)).unwrap()
        };
        assert_eq!(host(None), "https://bedrock-runtime.us-east-1.amazonaws.com");
        assert_eq!(host(Some("eu-west-1")), "https://bedrock-runtime.eu-west-1.amazonaws.com");
        assert_eq!(host(Some("cn-north-1")), "https://bedrock-runtime.cn-north-1.amazonaws.com.cn");
        assert!(bedrock.base_url(|_| Some("a.evil.example/".to_owned())).is_err());
        let azure = Provider::named("azure-openai-responses").unwrap();
        let with = |wanted: &str, value: &str| {
            azure.base_url(|name| (name == wanted).then(|| value.to_owned())).unwrap()
        };
        assert_eq!(with("AZURE_OPENAI_RESOURCE_NAME", "me"), "https://me.openai.azure.com/openai/v1");
        let base = "AZURE_OPENAI_BASE_URL";
        assert_eq!(with(base, "https://me.openai.azure.com/"), "https://me.openai.azure.com/openai/v1");
        assert_eq!(with(base, "https://gateway.example/x/"), "https://gateway.example/x");
        assert_eq!(azure.base_url(|_| None), Err("`AZURE_OPENAI_RESOURCE_NAME` is not set".to_owned()));
    }
}
