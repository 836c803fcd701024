// A value in the cache of a tenant, a miss, and a failure.
import { MorelloError, open } from "./morello.js";

const { nc, call } = await open();
try {
  const value = { steps: ["read", "think"] };
  const set = await call("cache.set", { key: "plan:42", value, ttl_seconds: 600, tags: ["agent:7"] });
  console.log("set: stored", set.stored);

  const hit = await call("cache.get", { key: "plan:42" });
  console.log("get: found", hit.found, JSON.stringify(hit.value));

  const miss = await call("cache.get", { key: "plan:43" });
  console.log("get: found", miss.found);

  await call("cache.set", { key: "plan:42", value, ttl_seconds: 0 });
} catch (error) {
  if (!(error instanceof MorelloError)) throw error;
  console.log(`error: ${error.code}: ${error.details.field} ${error.message}`);
} finally {
  await nc.drain();
}
