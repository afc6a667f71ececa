// Verifies messages with mailauth. Usage: node verify_with_mailauth.cjs NODE_MODULES NAMESERVER PORT < MESSAGES
// Each message on standard input comes after a line with its length in bytes. For each, one line is printed:
// the result of every signature, as SELECTOR=RESULT, separated by blanks.
const { Resolver } = require('node:dns').promises;
const path = require('node:path');

const [modules, host, port] = process.argv.slice(2);
const { dkimVerify } = require(path.join(modules, 'mailauth', 'lib', 'dkim', 'verify.js'));
const servers = new Resolver();
servers.setServers([`${host}:${port}`]);

async function main() {
    const blocks = [];
    for await (const block of process.stdin) blocks.push(block);
    const input = Buffer.concat(blocks);
    for (let at = 0; at < input.length; ) {
        const newline = input.indexOf('\n', at);
        const length = Number(input.subarray(at, newline).toString());
        const message = input.subarray(newline + 1, newline + 1 + length);
        const { results } = await dkimVerify(message, { resolver: (name, type) => servers.resolve(name, type) });
        const said = results.filter(each => each.selector).map(each => `${each.selector}=${each.status.result}`);
        process.stdout.write(said.join(' ') + '\n');
        at = newline + 1 + length;
    }
}

main();
