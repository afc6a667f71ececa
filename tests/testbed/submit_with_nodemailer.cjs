// Submits one message with nodemailer, as the JSON on standard input orders, and prints the server's last reply.
const fs = require("node:fs");
const order = JSON.parse(fs.readFileSync(0, "utf8"));
const nodemailer = require(`${order.modules}/nodemailer`);

const transport = nodemailer.createTransport({
  host: order.host,
  port: order.port,
  secure: false,
  ignoreTLS: true,
  auth: order.user ? { user: order.user, pass: order.pass } : undefined,
});
transport
  .sendMail({ envelope: { from: order.from, to: order.to }, raw: fs.readFileSync(order.message) })
  .then((sent) => console.log(sent.response))
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
