// Verifies a token of the service with jose, and plays with tokens of Mux's own SDK.
import Mux from "@mux/mux-node";
import * as jose from "jose";

const { token, publicPem, keyId, privateKey, playbackId, base } = JSON.parse(process.argv[2]);
const key = await jose.importSPKI(publicPem, "RS256");
const { payload, protectedHeader } = await jose.jwtVerify(token, key, { audience: "v", subject: playbackId });
console.log("jose:", protectedHeader.alg, protectedHeader.kid === keyId, payload.kid === keyId);

const status = async (path, token) => (await fetch(`${base}/${path}?token=${token}`)).status;
const paths = {
  video: `playback/${playbackId}.m3u8`,
  thumbnail: `image/${playbackId}/thumbnail.png`,
  storyboard: `image/${playbackId}/storyboard.vtt`,
};
console.log("service: video", await status(paths.video, token));
const mux = new Mux({ tokenId: "id", tokenSecret: "secret", jwtSigningKey: keyId, jwtPrivateKey: privateKey });
for (const [type, path] of Object.entries(paths)) {
  console.log("mux-node:", type, await status(path, await mux.jwt.signPlaybackId(playbackId, { type, expiration: "1h" })));
}
