// In a session that only logs in, types `/login` for the user. An Enter that gets lost is the user's to press.
export default function (pi) {
    pi.on("session_start", (_event, context) => {
        context.ui.setEditorText(`/login ${process.env.PI_BOX_LOGIN ?? ""}`.trim());
        setTimeout(() => process.stdin.emit("data", "\r"), 100);
    });
}
