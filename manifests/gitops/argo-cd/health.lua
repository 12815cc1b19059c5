-- Health of a FineTuneJob for Argo CD. The kind follows kstatus: observedGeneration is -1 until the operator has seen
-- the job, Ready and Succeeded are Unknown until the end, Stalled is True only when the user must change something.
local function condition(type)
  for _, item in ipairs(obj.status.conditions or {}) do
    if item.type == type then
      return item
    end
  end
  return nil
end

local function health(status, item)
  return { status = status, message = item ~= nil and item.message or "" }
end

local function is(item, status)
  return item ~= nil and item.status == status
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator" }
end

local succeeded, stalled, suspended = condition("Succeeded"), condition("Stalled"), condition("Suspended")
if is(succeeded, "True") then
  return health("Healthy", succeeded)
end
if is(succeeded, "False") then
  return health("Degraded", succeeded)
end
if is(stalled, "True") then
  return health("Degraded", stalled)
end
if is(suspended, "True") then
  return health("Suspended", suspended)
end
return health("Progressing", succeeded)
