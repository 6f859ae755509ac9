//! The environment variables that the agent and its model providers read, and those that a user cannot set.

/// Harmless variables. If they are set, the agent gets them unchanged.
///
/// These are missing on purpose:
/// - paths of the host: `PI_CODING_AGENT_DIR`, `PI_PACKAGE_DIR`, `PI_TUI_WRITE_LOG`
/// - commands that the agent would run: `PI_SELF_UPDATE_COMMAND`
/// - the launcher's decisions: `PI_TELEMETRY`, `PI_SKIP_VERSION_CHECK`, `PI_OAUTH_CALLBACK_HOST`
/// - `COLUMNS` and `LINES`: they would be wrong after a resize
/// - `DISPLAY`, `WAYLAND_DISPLAY` and `WSL_*`: they promise a clipboard that the container does not have, and the agent
///   would not use the terminal's
pub(crate) const PASS: &[&str] = &[
    // The terminal and its colours.
    "TERM", "COLORTERM", "COLORFGBG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION", "TERMINAL_EMULATOR", "ALACRITTY_WINDOW_ID", "GHOSTTY_RESOURCES_DIR",
    "ITERM_SESSION_ID", "KITTY_WINDOW_ID", "WARP_SESSION_ID", "WARP_TERMINAL_SESSION_UUID", "WEZTERM_PANE",
    "WT_SESSION", // Multiplexers, which swallow images, and remote lines, which delay keys.
    "TMUX", "STY", "ZELLIJ", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "MOSH_CONNECTION",
    // How the agent should use the terminal.
    "PI_CLEAR_ON_SHRINK", "PI_CLIPBOARD_OSC52", "PI_HARDWARE_CURSOR", "PI_HYPERLINKS", "PI_IMAGE_PROTOCOL",
    "PI_PROGRAM_STATUS", "PI_TRUE_COLOR", "PI_TUI_ESC_TIMEOUT",
    // The agent's behaviour.
    "PI_CACHE_RETENTION", "PI_CODEMODE_MAX_WORKERS", "PI_EXPERIMENTAL", "PI_OFFLINE", "PI_RADIUS_GATEWAY",
    "PI_SHARE_VIEWER_URL", "PI_STARTUP_BENCHMARK", "PI_TIMING", "TZ",
];

/// Credentials of model providers.
pub(crate) const SECRETS: &[&str] = &[
    "AI_GATEWAY_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_OAUTH_TOKEN",
    "ANT_LING_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_BEARER_TOKEN_BEDROCK", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_OPENAI_API_KEY", "BASETEN_API_KEY",
    "CEREBRAS_API_KEY", "CLOUDFLARE_API_KEY", "COPILOT_GITHUB_TOKEN", "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY", "GEMINI_API_KEY", "GOOGLE_CLOUD_API_KEY", "GROQ_API_KEY", "HF_TOKEN",
    "KIMI_API_KEY", "LLAMA_API_KEY", "META_API_KEY", "MINIMAX_API_KEY", "MINIMAX_CN_API_KEY",
    "MISTRAL_API_KEY", "MOONSHOT_API_KEY", "NVIDIA_API_KEY", "OPENAI_API_KEY", "OPENCODE_API_KEY",
    "OPENROUTER_API_KEY", "QWEN_TOKEN_PLAN_API_KEY", "QWEN_TOKEN_PLAN_CN_API_KEY", "RADIUS_API_KEY",
    "TOGETHER_API_KEY", "TYPESAFE_API_KEY", "XAI_API_KEY", "XIAOMI_API_KEY", "XIAOMI_TOKEN_PLAN_AMS_API_KEY",
    "XIAOMI_TOKEN_PLAN_CN_API_KEY", "XIAOMI_TOKEN_PLAN_SGP_API_KEY", "ZAI_API_KEY", "ZAI_CODING_CN_API_KEY",
];

/// Settings of model providers that are not secret: names, regions, addresses, switches.
pub(crate) const SETTINGS: &[&str] = &[
    "ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_ORGANIZATION_ID", "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_WORKSPACE_ID", "AWS_BEDROCK_FORCE_CACHE", "AWS_BEDROCK_FORCE_HTTP1", "AWS_BEDROCK_SKIP_AUTH",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AZURE_OPENAI_API_VERSION",
    "AZURE_OPENAI_BASE_URL", "AZURE_OPENAI_DEPLOYMENT_NAME_MAP", "AZURE_OPENAI_RESOURCE_NAME",
    "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID", "GCLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT", "KIMI_CODE_OAUTH_HOST", "KIMI_OAUTH_HOST",
    "LLAMA_BASE_URL",
];

/// Variables that name a file with a credential. The name alone is useless in the container.
pub(crate) const CREDENTIAL_PATHS: &[&str] = &[
    "ANTHROPIC_IDENTITY_TOKEN_FILE", "AWS_CONFIG_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_TOKEN_PATH",
];

/// Why no session may pass this variable to the agent: docker itself reads it, the sandbox sets it, or it changes the
/// programs that check the sandbox before the agent runs.
pub(crate) fn unfit(variable: &str) -> Option<&'static str> {
    let is_name = !variable.is_empty()
        && !variable.starts_with(|c: char| c.is_ascii_digit())
        && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        Some("is not the name of a variable")
    } else if ["DOCKER_", "BUILDKIT_", "BUILDX_", "COMPOSE_"].iter().any(|own| variable.starts_with(own)) {
        Some("is read by docker itself")
    } else if ["LD_", "PI_BOX_", "GIT_CONFIG_"].iter().any(|own| variable.starts_with(own))
        || matches!(variable, "HOME" | "PATH" | "USER" | "LOGNAME" | "TMPDIR")
    {
        Some("is set by the sandbox")
    } else {
        None
    }
}
