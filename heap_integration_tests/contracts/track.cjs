// Sends what argv says through the npm client heap-api, to another host than Heap's.
const [base, appId, modules] = process.argv.slice(2);
const heap = require(`${modules}/heap-api`);
const send = heap.Client.prototype._request;
heap.Client.prototype._request = function (options, callback) {
  options.url = options.url.replace("https://heapanalytics.com", base);
  return send.call(this, options, callback);
};
const client = heap(appId);
client
  .track("Node Event", "ada@example.com", { amount: 3, plan: "pro" })
  .then(() => client.addUserProperties("ada@example.com", { plan: "pro" }))
  .then(() => heap("1").track("Nobody's", "ada@example.com"))
  .catch((error) => console.log(error.message));
