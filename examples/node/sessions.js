// A login: a session with its secret token, data that is merged in the database, a new token, the end.
import { MorelloError, open } from "./morello.js";

const { nc, call } = await open();
try {
  const login = await call("session.create", { user_id: "ada", data: { cart: ["book"] } });
  console.log("create: a token of", login.token.length, "characters, told this once");

  const { session } = await call("session.get_by_token", { token: login.token });
  console.log("get_by_token:", session.user_id, JSON.stringify(session.data));

  const changed = await call("session.update", { session_id: session.session_id, data: { theme: "dark" } });
  console.log("update:", JSON.stringify(changed.session.data), "version", changed.session.version);

  // The old token works until the new one has been used, and 30 s from then: a reply that is lost costs nobody the session.
  const rotated = await call("session.rotate", { token: login.token });
  console.log("rotate: another token", rotated.token !== login.token);

  const deleted = await call("session.delete", { session_id: session.session_id });
  console.log("delete: deleted", deleted.deleted);
  await call("session.get_by_token", { token: rotated.token });
} catch (error) {
  if (!(error instanceof MorelloError)) throw error;
  console.log(`error: ${error.code}: ${error.message}`);
} finally {
  await nc.drain();
}
