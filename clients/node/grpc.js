// One broadcast from Node with @grpc/grpc-js: no code is generated, the .proto files are read at the start.
//
//   node grpc.js [HOST:PORT]
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const definition = protoLoader.loadSync("broadcast/v1/broadcast_service.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { BroadcastService } = grpc.loadPackageDefinition(definition).broadcast.v1;
const client = new BroadcastService(process.argv[2] ?? "127.0.0.1:50051", grpc.credentials.createInsecure());

function call(method, request) {
  const deadline = Date.now() + 60_000;
  return new Promise((resolve, reject) => {
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// A request_id makes a retry safe: one for each write, and the same one when that write is repeated.
const { broadcast } = await call("CreateBroadcast", { request_id: randomUUID(), spec: { title: "From Node" } });
console.log("created:", broadcast.id);

const started = await call("StartBroadcast", {
  request_id: randomUUID(),
  broadcast_id: broadcast.id,
  host_identity: "ann",
  wait: { seconds: 10 },
});
console.log("host enters at:", started.host_access.livekit_url);

const watch = client.WatchBroadcasts({ filter: { broadcast_ids: [broadcast.id] } });
try {
  for await (const message of watch) {
    if (message.message !== "change") continue;
    const { state } = message.change.broadcast.status;
    console.log("state:", state);
    if (state === "BROADCAST_STATE_READY") break;
  }
} finally {
  watch.on("error", () => {}).cancel();
}

const stopped = await call("StopBroadcast", {
  request_id: randomUUID(),
  broadcast_id: broadcast.id,
  wait: { seconds: 30 },
});
console.log("stopped:", stopped.broadcast.status.state);

try {
  await call("GetBroadcast", { broadcast_id: "nobody" });
} catch (error) {
  console.log("error:", grpc.status[error.code], error.details);
}
client.close();
