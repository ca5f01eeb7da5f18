// A viewer from Node with @grpc/grpc-js: joins a broadcast, keeps the session alive, and leaves.
//
//   node viewer.js [HOST:PORT [BROADCAST_ID]]
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const definition = protoLoader.loadSync("broadcast/v1/playback_service.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { PlaybackService } = grpc.loadPackageDefinition(definition).broadcast.v1;
const client = new PlaybackService(process.argv[2] ?? "127.0.0.1:50051", grpc.credentials.createInsecure());
const broadcast_id = process.argv[3] ?? "first";

function call(method, request) {
  const deadline = Date.now() + 10_000;
  return new Promise((resolve, reject) => {
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// One viewer for each device or tab. The session is a secret of the viewer's: never log it.
const joined = await call("JoinBroadcast", { broadcast_id, viewer_id: "ann" });
console.log("watches by:", joined.handle);
if (joined.handle === "hls") {
  const { playback, tokens } = joined.hls;
  console.log("plays:", playback.playback_id, tokens ? "with tokens" : "without a token");
}

// Every joined.keep_alive_interval, with all sessions of this backend, up to 1,000 a call.
const sessions = [
  { session: joined.session, handle_generation: joined.handle_generation },
  { session: "forged", handle_generation: 1 },
];
const { results } = await call("KeepAlive", { sessions });
for (const { index, status } of results) console.log("session", index, "is", status);

await call("LeaveBroadcast", { session: joined.session });
console.log("left");
client.close();
