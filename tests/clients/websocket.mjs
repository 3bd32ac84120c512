// npm `ws` over the Unix socket: node websocket.mjs TOOLS SOCKET. Says each step as one line of JSON.
import { createRequire } from 'node:module';
const [, , tools, path] = process.argv;
const { WebSocket } = createRequire(tools + '/')('ws');
const say = (step, more) => console.log(JSON.stringify({ step, ...more }));

const socket = new WebSocket(`ws+unix:${path}:/`);
const waiting = new Map();
const events = [];
let arrived = () => {};
let last = 0;
const request = (method, params) => new Promise((resolve) => {
  waiting.set(++last, resolve);
  socket.send(JSON.stringify({ jsonrpc: '2.0', id: last, method, params }));
});

socket.on('error', (error) => { console.error(error); process.exit(1); });
socket.on('message', (data, binary) => {
  if (binary) throw new Error('a binary message');
  const message = JSON.parse(data);
  if ('method' in message) {
    events.push(message);
    arrived();
  } else {
    waiting.get(message.id)(message);
    waiting.delete(message.id);
  }
});
socket.on('open', async () => {
  say('call', { result: (await request('get_project', { project_id: 'alpha' })).result });
  say('error', { error: (await request('get_project', { project_id: 'no-such' })).error });
  const id = (await request('events.subscribe', { kinds: ['project.changed'] })).result;
  say('subscribed', { id });
  if (events.length === 0) await new Promise((resolve) => { arrived = resolve; });
  say('event', { method: events[0].method, params: events[0].params });
  say('unsubscribed', { result: (await request('events.unsubscribe', { subscription: id })).result });
  // The daemon answers a ping, and a close with a close.
  await new Promise((resolve) => { socket.once('pong', resolve); socket.ping('still there?'); });
  socket.close(1000, 'done');
});
socket.on('close', (code) => say('end', { code }));
