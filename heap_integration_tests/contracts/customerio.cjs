// Fills a manual segment through the npm client customerio-node, and prints what it was told.
const [base, modules] = process.argv.slice(2);
const { APIClient, TrackClient } = require(`${modules}/customerio-node`);
const track = new TrackClient("sandbox-site-id", "sandbox-customerio-api-key", {
  url: `${base}/customerio/track/api/v1`,
});
const app = new APIClient("sandbox-customerio-app-api-key", { url: `${base}/customerio/app/v1` });
const status = (promise) => promise.then(() => 200, (error) => error.statusCode);

async function main() {
  const told = { region: await track.getAccountRegion() };
  await track.identify("ann", { email: "ann@example.com", plan: "pro" });
  const person = (id) => ({ type: "person", action: "identify", identifiers: { id }, attributes: { plan: "free" } });
  told.batch = await track.batch([person("bob"), person("")]);
  told.segment = (await app.createSegment({ name: "Theirs" })).segment.id;
  await track.addCustomersToSegment(told.segment, ["ann", "bob", "nobody"]);
  told.membership = await app.getSegmentMembership(told.segment);
  await track.removeCustomersFromSegment(told.segment, ["ann@example.com"], "email");
  told.left = await app.getSegmentCustomerCount(told.segment);
  told.attributes = await app.getCustomersAttributes(["ann", "nobody"]);
  told.refused = [await status(track.addCustomersToSegment(99, ["ann"])), await status(app.getSegment(99))];
  console.log(JSON.stringify(told));
}

main();
