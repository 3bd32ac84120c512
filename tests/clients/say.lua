-- What both Neovim clients share: a line of JSON per step, and an exit code that tells.
local function say(message)
  io.stdout:write(vim.json.encode(message), '\n')
  io.stdout:flush()
end

local function finish(work)
  local ok, err = xpcall(work, debug.traceback)
  if ok then
    vim.cmd('qall!')
  else
    io.stderr:write(tostring(err), '\n')
    vim.cmd('cquit 1')
  end
end

return { say, finish }
