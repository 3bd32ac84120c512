-- Neovim's LSP client over the Unix socket: nvim --headless -u NONE -c 'luafile lsp.lua'
local say, finish = unpack(dofile(vim.env.TEROK_TEST_CLIENTS .. '/say.lua'))

finish(function()
  local events = {}
  local client = vim.lsp.rpc.connect(vim.env.TEROKD_SOCKET)({
    notification = function(method, params) table.insert(events, { method = method, params = params }) end,
    server_request = function(method) error('the daemon asks: ' .. method) end,
    on_exit = function() end,
    on_error = function(code, message) error(('client error %s: %s'):format(code, vim.inspect(message))) end,
  })
  local function request(method, params)
    local answer
    assert(client.request(method, params, function(err, result) answer = { error = err, result = result } end), 'not sent')
    assert(vim.wait(30000, function() return answer ~= nil end, 5), 'no answer to ' .. method)
    return answer
  end

  say({ step = 'call', result = request('get_project', { project_id = 'alpha' }).result })
  local refused = request('get_project', { project_id = 'no-such' }).error
  say({ step = 'error', error = { code = refused.code, message = refused.message, data = refused.data } })
  local id = request('events.subscribe', { kinds = { 'project.changed' } }).result
  say({ step = 'subscribed', id = id })
  assert(vim.wait(30000, function() return #events > 0 end, 5), 'no event')
  say({ step = 'event', method = events[1].method, params = events[1].params })
  say({ step = 'unsubscribed', result = request('events.unsubscribe', { subscription = id }).result })
  assert(not client.is_closing(), 'the daemon has closed the connection')
  client.terminate()
  assert(vim.wait(30000, function() return client.is_closing() end, 5), 'the client does not end')
  say({ step = 'end' })
end)
