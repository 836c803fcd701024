// An agent's memory from one state to the next: what changed between them, a part of one, and the way back.
import { MorelloError, open } from "./morello.js";

const { nc, call } = await open();
try {
  const data = { goal: "plan a trip", turns: [{ role: "user", text: "to Lisbon" }] };
  const first = await call("snapshot.create", { agent_id: "planner", label: "begun", data });
  data.turns.push({ role: "agent", text: "in May?" });
  const second = await call("snapshot.create", { agent_id: "planner", data });
  console.log("create: follows the first", second.snapshot.parent_id === first.snapshot.snapshot_id);

  const latest = await call("snapshot.latest", { agent_id: "planner" });
  console.log("latest:", latest.data.turns.length, "turns in", latest.snapshot.size_bytes, "bytes");

  const part = await call("snapshot.get", { snapshot_id: second.snapshot.snapshot_id, path: "/turns/1/text" });
  console.log("get:", JSON.stringify(part.data));

  const diff = await call("snapshot.diff", {
    from_snapshot_id: first.snapshot.snapshot_id, to_snapshot_id: second.snapshot.snapshot_id,
  });
  console.log("diff:", JSON.stringify(diff.changes));

  // Of two that go on from the same state one wins, the other is told which state there is.
  const stale = first.snapshot.snapshot_id;
  await call("snapshot.create", { agent_id: "planner", if_head: stale, data: { goal: "something else" } });
} catch (error) {
  if (!(error instanceof MorelloError)) throw error;
  console.log(`error: ${error.code}: ${error.details.field}`);
} finally {
  await nc.drain();
}
