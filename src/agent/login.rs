//! The agent's logins: which providers have one, the ways to make it, and the addresses that belong to it.

/// A provider to which the agent can log in with an account.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// As the agent calls it, in `auth.json` too.
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) ways: &'static str,
    /// The port on which the agent waits for the browser.
    pub(crate) port: Option<u16>,
    /// The way that is left where that port is taken.
    pub(crate) without_port: &'static str,
    /// Its pages for logging in: a host, and how the path begins.
    pub(crate) pages: &'static [(&'static str, &'static str)],
}

const PASTE: &str =
    "when the browser ends at a page that it cannot show, paste the address of that page here";
const DEVICE: &str = "choose the device code";

const fn browser(id: &'static str, name: &'static str, port: u16) -> Login {
    Login { id, name, ways: "browser, or paste", port: Some(port), without_port: PASTE, pages: &[] }
}

const fn device(id: &'static str, name: &'static str) -> Login {
    Login { id, name, ways: "device code", port: None, without_port: "", pages: &[] }
}

pub(crate) const LOGINS: [Login; 9] = [
    Login {
        pages: &[("claude.ai", "/oauth/"), ("platform.claude.com", "/oauth/")],
        ..browser("anthropic", "Claude Pro or Max", 53692)
    },
    Login { pages: &[("github.com", "/login/device")], ..device("github-copilot", "GitHub Copilot") },
    Login {
        pages: &[("auth.kimi.com", "/"), ("www.kimi.com", "/code/")],
        ..device("kimi-coding", "Kimi Code")
    },
    Login { pages: &[("auth.meta.com", "/")], ..device("meta", "Meta") },
    Login {
        pages: &[("auth.openai.com", "/oauth/")],
        without_port: "the agent needs it for this login; `pi login openai-codex` can do without",
        ways: "browser",
        ..browser("openai", "ChatGPT, for the API", 1455)
    },
    Login {
        pages: &[("auth.openai.com", "/oauth/"), ("auth.openai.com", "/codex/device")],
        without_port: DEVICE,
        ways: "browser, device code, or paste",
        ..browser("openai-codex", "ChatGPT Plus or Pro", 1455)
    },
    Login { pages: &[("openrouter.ai", "/auth")], ways: "paste", ..device("openrouter", "OpenRouter") },
    Login {
        // The agent binds its port where nothing can reach it from outside.
        pages: &[("radius.pi.dev", "/")],
        ..device("radius", "Radius")
    },
    Login { pages: &[("auth.x.ai", "/"), ("accounts.x.ai", "/")], ..device("xai", "xAI") },
];

/// Providers that take a key and have no login.
pub(crate) const KEYED: [&str; 35] = [
    "amazon-bedrock", "ant-ling", "azure", "azure-openai-responses", "baseten", "cerebras",
    "cloudflare-ai-gateway", "cloudflare-workers-ai", "deepseek", "fireworks", "google", "google-vertex",
    "groq", "huggingface", "llama.cpp", "minimax", "minimax-cn", "mistral", "moonshotai", "moonshotai-cn",
    "nvidia", "opencode", "opencode-go", "qwen-token-plan", "qwen-token-plan-cn",
    "qwen-token-plan-individual", "together", "typesafe", "vercel-ai-gateway", "xiaomi",
    "xiaomi-token-plan-ams", "xiaomi-token-plan-cn", "xiaomi-token-plan-sgp", "zai", "zai-coding-cn",
];

impl Login {
    pub(crate) fn of(id: &str) -> Option<&'static Self> {
        LOGINS.iter().find(|login| login.id == id)
    }
}

/// Whether the agent knows this provider.
pub(crate) fn is_provider(id: &str) -> bool {
    Login::of(id).is_some() || KEYED.contains(&id)
}

/// The provider that was most likely meant.
pub(crate) fn nearest_provider(id: &str) -> Option<&'static str> {
    let meant = id.to_lowercase();
    let own = LOGINS.iter().map(|login| login.id).chain(KEYED).map(|id| (id, id));
    let near = CALLED.into_iter().chain(own).map(|(known, id)| (strsim::osa_distance(&meant, known), id));
    let near = near.filter(|(distance, _)| *distance <= meant.len().div_ceil(4).min(3));
    near.min_by_key(|(distance, _)| *distance).map(|(_, id)| id)
}

/// What people call a provider.
const CALLED: [(&str, &str); 7] = [
    ("claude", "anthropic"),
    ("chatgpt", "openai-codex"),
    ("codex", "openai-codex"),
    ("copilot", "github-copilot"),
    ("gemini", "google"),
    ("kimi", "kimi-coding"),
    ("grok", "xai"),
];

/// Makes the agent log in and do nothing else: it has no tool, and loads nothing but what types `/login` for the user.
pub(crate) const LOGIN_WORDS: [&str; 11] = [
    "--no-extensions", "--extension", "/usr/local/lib/pi/login.js", "--no-builtin-tools", "--no-session",
    "--no-skills", "--no-prompt-templates", "--no-context-files", "--no-themes", "--no-approve", "--offline",
];

/// Atlassian's own login, in the browser.
pub(crate) const ACLI_WORDS: [&str; 5] = ["acli", "jira", "auth", "login", "--web"];

/// Its pages for logging in.
pub(crate) const ACLI_PAGES: &[(&str, &str)] = &[("auth.atlassian.com", "/"), ("id.atlassian.com", "/")];

/// Makes the agent renew the login of the provider that follows. Its token is in `auth.json` then, so nobody needs what
/// it prints; a signal at the end of the time lets it write down what has come.
pub(crate) const RENEW: [&str; 4] = [
    "sh",
    "-c",
    "exec timeout 25 pi auth print-bearer-token --provider \"$1\" --min-expiry 30m >/dev/null 2>&1",
    "sh",
];

/// Tells that extension which provider was asked for.
pub(crate) const LOGIN_PROVIDER: &str = "PI_BOX_LOGIN";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_provider_is_listed_once_and_each_login_has_its_pages() {
        let all: Vec<_> = LOGINS.iter().map(|login| login.id).chain(KEYED).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for login in &LOGINS {
            assert!(!login.pages.is_empty(), "{}", login.id);
            assert_eq!(login.port.is_some(), !login.without_port.is_empty(), "{}", login.id);
        }
    }

    #[test]
    fn what_people_call_a_provider_leads_to_it() {
        for (typed, meant) in
            [("claud", "anthropic"), ("antropic", "anthropic"), ("Codex", "openai-codex"), ("gorq", "groq")]
        {
            assert_eq!(nearest_provider(typed), Some(meant), "{typed}");
        }
        assert_eq!(nearest_provider("nonsense"), None);
    }
}
