-- Neovim's own channels with one JSON value per line: nvim --headless -u NONE -c 'luafile lines.lua'
local say, finish = unpack(dofile(vim.env.TEROK_TEST_CLIENTS .. '/say.lua'))

finish(function()
  local answers, events, rest = {}, {}, ''
  local ended = false
  local channel = vim.fn.sockconnect('pipe', vim.env.TEROKD_SOCKET, {
    on_data = function(_, data)
      if #data == 1 and data[1] == '' then
        ended = true
        return
      end
      data[1] = rest .. data[1]
      rest = table.remove(data)
      for _, line in ipairs(data) do
        local message = vim.json.decode(line)
        if message.method then
          table.insert(events, message)
        else
          answers[message.id] = message
        end
      end
    end,
  })
  assert(channel > 0, 'no connection')
  local last = 0
  local function request(method, params)
    last = last + 1
    vim.fn.chansend(channel, vim.json.encode({ jsonrpc = '2.0', id = last, method = method, params = params }) .. '\n')
    assert(vim.wait(30000, function() return answers[last] ~= nil end, 5), 'no answer to ' .. method)
    return answers[last]
  end

  say({ step = 'call', result = request('get_project', { project_id = 'alpha' }).result })
  say({ step = 'error', error = request('get_project', { project_id = 'no-such' }).error })
  local id = request('events.subscribe', { kinds = { 'project.changed' } }).result
  say({ step = 'subscribed', id = id })
  assert(vim.wait(30000, function() return #events > 0 end, 5), 'no event')
  say({ step = 'event', method = events[1].method, params = events[1].params })
  say({ step = 'unsubscribed', result = request('events.unsubscribe', { subscription = id }).result })
  assert(not ended, 'the daemon has closed the connection')
  vim.fn.chanclose(channel)
  say({ step = 'end' })
end)
