// Submits one message through a sendmail program with nodemailer, as the JSON on standard input orders.
const fs = require("node:fs");
const order = JSON.parse(fs.readFileSync(0, "utf8"));
const nodemailer = require(`${order.modules}/nodemailer`);

const transport = nodemailer.createTransport({ sendmail: true, newline: "unix", path: order.path });
transport
  .sendMail({ from: order.from, to: order.to, bcc: order.bcc, subject: order.subject, text: ".\n..two\nlast" })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
