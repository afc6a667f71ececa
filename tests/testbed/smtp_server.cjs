// A next hop made with the npm package smtp-server: keeps each message in a directory, as ID.json and ID.eml.
// With `jwks` it demands XOAUTH2, and a token that is signed by a key found there and is not in the file `revoked`.
const crypto = require("node:crypto");
const fs = require("node:fs");
const order = JSON.parse(process.argv[2]);
const { SMTPServer } = require(`${order.modules}/smtp-server`);

const decoded = (part) => JSON.parse(Buffer.from(part, "base64url"));
async function holds(token) {
  const [header, claims, signature] = token.split(".");
  const { keys } = await (await fetch(order.jwks)).json();
  const jwk = keys.find((key) => key.kid === decoded(header).kid);
  const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
  const signed = crypto.verify("RSA-SHA256", `${header}.${claims}`, key, Buffer.from(signature, "base64url"));
  const revoked = `${order.directory}/revoked`;
  const gone = fs.existsSync(revoked) && fs.readFileSync(revoked, "utf8").includes(token);
  return signed && !gone && decoded(claims).exp > Date.now() / 1000;
}

let count = 0;
const server = new SMTPServer({
  key: fs.readFileSync(order.chain),
  cert: fs.readFileSync(order.chain),
  authOptional: !order.jwks,
  authMethods: order.jwks ? ["XOAUTH2"] : ["PLAIN", "LOGIN"],
  onAuth: (auth, session, done) =>
    holds(auth.accessToken).then(
      (good) => done(null, good ? { user: auth.username } : { data: { status: "401", schemes: "bearer" } }),
      (error) => done(error),
    ),
  hideSMTPUTF8: false,
  disableReverseLookup: true,
  onMailFrom: (address, session, done) => done(session.secure ? null : new Error("530 5.7.0 STARTTLS first")),
  onData: (stream, session, done) => {
    const name = `${order.directory}/${++count}`;
    const file = fs.createWriteStream(`${name}.eml`);
    stream.pipe(file);
    file.on("finish", () => {
      const envelope = session.envelope;
      const kept = { user: session.user || "", from: envelope.mailFrom.address || "", to: envelope.rcptTo.map((rcpt) => rcpt.address) };
      fs.writeFileSync(`${name}.json.part`, JSON.stringify(kept));
      fs.renameSync(`${name}.json.part`, `${name}.json`);
      done();
    });
  },
});
server.on("error", () => {}); // a client that goes away is no reason to end
server.listen(order.port, order.host);
process.on("SIGTERM", () => process.exit(0));
