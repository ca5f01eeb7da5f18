// One broadcast from Node with Connect for ECMAScript, on generated code: typed, and validated before it is sent.
//
//   node connect.js [HOST:PORT]
import { randomUUID } from "node:crypto";

import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { BroadcastState } from "./gen/broadcast/v1/broadcast_pb.js";
import { BroadcastService, CreateBroadcastRequestSchema } from "./gen/broadcast/v1/broadcast_service_pb.js";

// The service speaks gRPC over HTTP/2, not the Connect protocol over HTTP/1.1: a browser needs a proxy in between.
const client = createClient(
  BroadcastService,
  createGrpcTransport({ baseUrl: `http://${process.argv[2] ?? "127.0.0.1:50051"}` }),
);

const wrong = create(CreateBroadcastRequestSchema, { spec: { layout: "Not A Layout" } });
const { kind, violations } = createValidator().validate(CreateBroadcastRequestSchema, wrong);
console.log("invalid:", kind === "invalid" && violations.map((each) => each.toString()).join());

// A requestId makes a retry safe: one for each write, and the same one when that write is repeated.
const { broadcast } = await client.createBroadcast({ requestId: randomUUID(), spec: { title: "From Connect" } });
const broadcastId = broadcast.id;
console.log("created:", broadcastId);

const started = await client.startBroadcast({
  requestId: randomUUID(),
  broadcastId,
  hostIdentity: "ann",
  wait: { seconds: 10n },
});
console.log("host enters at:", started.hostAccess.livekitUrl);

for await (const { message } of client.watchBroadcasts({ filter: { broadcastIds: [broadcastId] } })) {
  if (message.case !== "change") continue;
  const { state } = message.value.broadcast.status;
  console.log("state:", BroadcastState[state]);
  if (state === BroadcastState.READY) break;
}

const stopped = await client.stopBroadcast({ requestId: randomUUID(), broadcastId, wait: { seconds: 30n } });
console.log("stopped:", BroadcastState[stopped.broadcast.status.state]);

try {
  await client.getBroadcast({ broadcastId: "nobody" });
} catch (error) {
  const { code, rawMessage } = ConnectError.from(error);
  console.log("error:", Code[code], rawMessage);
}
process.exit(0);
