// What is said of a subagent that has ended.

const MANY = 30;

export function report(result) {
  const { task, asked, branch, directory, state, error, words, wip, commits, files, pr, pushed, problems, removed } = result;
  const name = task === asked ? `\`${task}\`` : `\`${task}\` (\`${asked}\` was taken)`;
  const ending = { finished: "has finished", failed: "failed", killed: "was killed", cancelled: "was cancelled", "timed out": "ran out of time" };
  const lines = [`The subagent ${name} ${ending[state]}${error ? `: ${error}` : ""}.`];
  if (pr) lines.push(`Pull request: ${pr}`);
  lines.push(`Branch: ${branch}${pushed ? `, pushed to ${pushed}` : ""}`);
  lines.push(...some(commits, "Commits"), ...some(files, "Files"));
  if (!commits.length) lines.push("It made no commits.");
  if (wip === "committed") lines.push("What it had not committed is in the last commit, `wip: …`.");
  if (!removed) lines.push(`Its worktree stays: ${directory}`);
  lines.push(...problems.map((problem) => `Note: ${problem}`));
  if (result.unconfined) lines.push("Note: this kernel has no Landlock (Linux 5.19 or newer), so nothing kept it in its worktree.");
  if (words) lines.push("", state === "finished" ? "It says:" : "It said last:", words);
  return lines.join("\n");
}

function some(list, title) {
  if (!list.length) return [];
  const more = list.length > MANY ? [`  … and ${list.length - MANY} more`] : [];
  return [`${title}:`, ...list.slice(0, MANY).map((line) => `  ${line.replace("\t", " ")}`), ...more];
}

export function age(ms) {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 60) return `${minutes}m`;
  return minutes < 1440 ? `${Math.floor(minutes / 60)}h${String(minutes % 60).padStart(2, "0")}m` : `${Math.floor(minutes / 1440)}d`;
}
