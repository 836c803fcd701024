// Measures PostgresSaver of @langchain/langgraph-checkpoint-postgres. The only argument is JSON, and so is what it prints.
//
// A state's members are channels, and a turn is one checkpoint. In the mode "default" a channel whose value has changed is stored
// whole, as LangGraph's runtime has it. In the mode "delta" the messages are a DeltaChannel: putWrites stores the new ones beside
// the checkpoint before, the checkpoint leaves them out, and after every hundredth update, which is the default of
// snapshotFrequency, they are stored whole as a DeltaSnapshot.
import { deepStrictEqual } from "node:assert";
import { readFileSync } from "node:fs";
import { DeltaSnapshot, isDeltaSnapshot, uuid6 } from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";

const snapshotFrequency = 100;

const input = JSON.parse(process.argv[2]);
const saver = PostgresSaver.fromConnString(input.url, { schema: input.schema });

class Thread {
  constructor(id, isDelta) {
    this.config = { configurable: { thread_id: id, checkpoint_ns: "" } };
    this.isDelta = isDelta;
    this.state = {};
    this.versions = {};
    this.step = -1;
    this.updates = 0;
  }

  // put stores a state, of which the members in changed differ from the one before; appended are the messages that were added.
  async put(state, changed, appended) {
    this.step += 1;
    const values = { ...state };
    const newVersions = {};
    for (const name of changed) {
      this.versions[name] = (this.versions[name] ?? 0) + 1;
      newVersions[name] = this.versions[name];
    }
    if (this.isDelta && appended.length > 0) {
      await saver.putWrites(this.config, [["messages", appended]], "00000000-0000-0000-0000-000000000000");
      this.updates += 1;
      if (this.updates % snapshotFrequency === 0) {
        values.messages = new DeltaSnapshot(state.messages);
      } else {
        delete values.messages;
      }
    }
    const checkpoint = {
      v: 4, id: uuid6(this.step), ts: new Date().toISOString(), channel_values: values, channel_versions: { ...this.versions }, versions_seen: {},
    };
    this.config = await saver.put(this.config, checkpoint, { source: "loop", step: this.step, parents: {} }, newVersions);
    this.state = state;
  }
}

// latest reads the newest state of a thread, as the runtime does before it goes on.
async function latest(id, isDelta) {
  const config = { configurable: { thread_id: id, checkpoint_ns: "" } };
  const tuple = await saver.getTuple(config);
  const values = tuple.checkpoint.channel_values;
  if (!isDelta) {
    return values;
  }
  if ("messages" in values) {
    return { ...values, messages: values.messages.value };
  }
  const { seed, writes } = (await saver.getDeltaChannelHistory({ config: tuple.config, channels: ["messages"] })).messages;
  const messages = seed === undefined ? [] : isDeltaSnapshot(seed) ? seed.value : seed;
  return { ...values, messages: messages.concat(...writes.map((write) => write[2])) };
}

// sameState compares states whatever the order of their members is.
function sameState(got, want) {
  deepStrictEqual(JSON.parse(JSON.stringify(got)), JSON.parse(JSON.stringify(want)));
}

async function conversation({ turns, isDelta, thread: id }) {
  const thread = new Thread(id, isDelta);
  const ms = [];
  if (isDelta) {
    await thread.put({}, [], []); // what the first writes are stored beside
  }
  let state = { messages: [] };
  for (const { added, rest } of JSON.parse(readFileSync(turns, "utf8"))) {
    const next = { messages: state.messages.concat(added), ...rest };
    const changed = Object.keys(next).filter((name) => name === "messages" || JSON.stringify(next[name]) !== JSON.stringify(state[name]));
    const begin = performance.now();
    await thread.put(next, changed, added);
    ms.push(performance.now() - begin);
    state = next;
  }
  sameState(await latest(id, isDelta), state);
  return { ms };
}

async function readLatest({ isDelta, thread, times }) {
  const ms = [];
  for (let i = -3; i < times; i += 1) {
    const begin = performance.now();
    await latest(thread, isDelta);
    if (i >= 0) {
      ms.push(performance.now() - begin);
    }
  }
  return { ms };
}

// small stores states of one message, each in place of the one before, by callers that have a thread each.
async function small({ prefix, callers, seconds, message }) {
  let count = 0;
  let counting = false;
  let ended = false;
  const caller = async (n) => {
    const thread = new Thread(`${prefix}-${n}`, false);
    for (let i = 0; !ended; i += 1) {
      await thread.put({ messages: [{ role: "user", content: `${n} ${i} ${message}` }], step: i }, ["messages", "step"], []);
      count += counting ? 1 : 0;
    }
  };
  const all = Promise.all(Array.from({ length: callers }, (_, n) => caller(n)));
  const sleep = (s) => new Promise((resolve) => setTimeout(resolve, s * 1000));
  await sleep(seconds / 4);
  counting = true;
  const begin = performance.now();
  const cpu = process.cpuUsage();
  await sleep(seconds);
  const { user, system } = process.cpuUsage(cpu);
  const took = (performance.now() - begin) / 1000;
  counting = false;
  ended = true;
  await all;
  return { per_second: count / took, cpu_us: (user + system) / count };
}

const commands = { setup: () => saver.setup(), conversation, latest: readLatest, small };
const result = await commands[input.command](input);
await saver.end();
console.log(JSON.stringify(result ?? {}));
