// A next hop made with the npm package smtp-server: keeps each message in a directory, as ID.json and ID.eml.
const fs = require("node:fs");
const order = JSON.parse(process.argv[2]);
const { SMTPServer } = require(`${order.modules}/smtp-server`);

let count = 0;
const server = new SMTPServer({
  key: fs.readFileSync(order.chain),
  cert: fs.readFileSync(order.chain),
  authOptional: true,
  hideSMTPUTF8: false,
  disableReverseLookup: true,
  onMailFrom: (address, session, done) => done(session.secure ? null : new Error("530 5.7.0 STARTTLS first")),
  onData: (stream, session, done) => {
    const name = `${order.directory}/${++count}`;
    const file = fs.createWriteStream(`${name}.eml`);
    stream.pipe(file);
    file.on("finish", () => {
      const envelope = session.envelope;
      const kept = { from: envelope.mailFrom.address || "", to: envelope.rcptTo.map((rcpt) => rcpt.address) };
      fs.writeFileSync(`${name}.json.part`, JSON.stringify(kept));
      fs.renameSync(`${name}.json.part`, `${name}.json`);
      done();
    });
  },
});
server.on("error", () => {}); // a client that goes away is no reason to end
server.listen(order.port, order.host);
process.on("SIGTERM", () => process.exit(0));
