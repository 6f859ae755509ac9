// In a session that works: says that logins are made outside, where the agent itself would say `/login` or do it.
export default function (pi) {
    const where = "Logins are kept outside of sessions: leave with Ctrl-D, and run `pi login` (or `pi logout`) on your machine.";
    pi.on("session_start", async (_event, { hasUI, modelRegistry, ui }) => {
        if (!hasUI) return;
        ui.onTerminalInput((data) => {
            // As much of the word as the agent completes.
            if (data !== "\r" || !/^\s*\/log(i|in|o|ou|out)?(\s|$)/.test(ui.getEditorText())) return undefined;
            ui.setEditorText("");
            ui.notify(where, "warning");
            return { consume: true };
        });
        if ((await modelRegistry.getAvailable()).length === 0) ui.notify(`There is no model yet. ${where}`, "warning");
    });
}
