// What users' handlers are like as a rule, to be rehearsed with.

using System;
using System.Collections.Generic;
using System.IO;
using System.Threading.Tasks;

public interface IContext
{
    string RequestId { get; }
    IFunction FunctionParam { get; }
    ILogger Logger { get; }
}

public interface IFunction
{
    string FunctionName { get; }
    TimeSpan FunctionTimeout { get; }
}

public interface ILogger
{
    bool IsEnabled(int level);
    void Log<TState>(int level, int id, TState state, Exception thrown, Func<TState, Exception, string> formatter);
}

public class Input
{
    public string Name { get; set; }
    public Dictionary<string, int[]> Tags { get; set; }
}

public class Output
{
    public int StatusCode { get; set; }
    public Dictionary<string, string> Headers { get; set; }
    public string Body { get; set; }
}

public class Sample
{
    public async Task<Stream> Echo(Stream input, IContext context)
    {
        // A level that is not written.
        context.Logger.Log(0, 0, context.RequestId, null, (state, thrown) => state);
        MemoryStream copy = new MemoryStream();
        await input.CopyToAsync(copy);
        await Task.Yield();
        return copy;
    }

    public Output Respond(Input input, IContext context)
    {
        string body = input.Name + context.FunctionParam.FunctionName + context.FunctionParam.FunctionTimeout;
        return new Output { StatusCode = 200, Headers = new Dictionary<string, string> { { "a", "b" } }, Body = body };
    }

    public void Fail()
    {
        throw new InvalidOperationException("rehearsed");
    }
}
