// npm `vscode-jsonrpc` over the Unix socket: node vscode.mjs TOOLS SOCKET. Says each step as one line of JSON.
import { createRequire } from 'node:module';
import { connect } from 'node:net';
const [, , tools, path] = process.argv;
const rpc = createRequire(tools + '/')('vscode-jsonrpc/node');
const say = (step, more) => console.log(JSON.stringify({ step, ...more }));
const refusal = (promise) => promise.then(
  (result) => { throw new Error(`not refused: ${JSON.stringify(result)}`); },
  ({ code, message, data }) => ({ code, message, data }),
);

const socket = connect(path);
const connection = rpc.createMessageConnection(
  new rpc.StreamMessageReader(socket), new rpc.StreamMessageWriter(socket));
connection.onError((error) => { console.error(error); process.exit(1); });
const waiting = [];
const seen = [];
connection.onNotification('events.event', (params) => {
  const next = waiting.shift();
  if (next) next(params); else seen.push(params);
});
const event = () => new Promise((resolve) => {
  if (seen.length > 0) resolve(seen.shift()); else waiting.push(resolve);
});
connection.listen();

say('call', { result: await connection.sendRequest('get_project', { project_id: 'alpha' }) });
say('error', { error: await refusal(connection.sendRequest('get_project', { project_id: 'no-such' })) });
const id = await connection.sendRequest('events.subscribe', { kinds: ['project.changed'] });
say('subscribed', { id });
say('event', { method: 'events.event', params: await event() });
say('unsubscribed', { result: await connection.sendRequest('events.unsubscribe', { subscription: id }) });

// By position, as vscode-jsonrpc does with several arguments.
say('positional', { result: await connection.sendRequest('find_projects_sharing_gate', '/no/such/gate', null) });

// A running deletion is withdrawn with `$/cancelRequest`.
const started = await connection.sendRequest('events.subscribe', { kinds: ['operation.started'] });
const source = new rpc.CancellationTokenSource();
const deletion = refusal(connection.sendRequest('delete_project', { project_id: 'big' }, source.token));
await event();
source.cancel();
say('cancelled', { error: await deletion });

// Ends its half of the connection; with nothing left to say, the daemon ends the other.
await connection.sendRequest('events.unsubscribe', started);
connection.onClose(() => say('end', {}));
connection.end();
