// Makes the calls that standard input lists through Segment's client for Node.
const [host, writeKey, modules] = process.argv.slice(2);
const { Analytics } = require(`${modules}/@segment/analytics-node`);
const refusals = [];
const analytics = new Analytics({ host, writeKey, path: "/v1/batch", flushAt: 50 });
analytics.on("error", (error) => refusals.push(String(error.reason ?? error.code)));
for (const { type, ...call } of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
  analytics[type](Object.fromEntries(Object.entries(call).map(([name, value]) => [camel(name), value])));
}
analytics.closeAndFlush().then(() => console.log(JSON.stringify(refusals)));

function camel(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}
